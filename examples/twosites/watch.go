package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// sampleEvery is how often it is looked how far everything is.
	sampleEvery = 500 * time.Millisecond
	// patience is how long nothing may move before the verdict is asked for, which
	// then says what is missing.
	patience = 90 * time.Second
)

// sample is how far the sites are. It is for the eye: the verdict counts.
type sample struct {
	link  string
	sites [2]reached
}

// reached is how far one site is.
type reached struct {
	name          string
	sent, effects int64
}

// String is the line that is shown.
func (s sample) String() string {
	parts := []string{"link " + s.link}
	for _, r := range s.sites {
		parts = append(parts, fmt.Sprintf("%s: %d sent, %d effects", r.name, r.sent, r.effects))
	}
	return strings.Join(parts, " · ")
}

// watch shows how far everything is, and returns when nothing is on its way any more,
// or has moved for long.
func (d *demo) watch(ctx context.Context) error {
	var last sample
	moved := time.Now()
	return poll(ctx, sampleEvery, func() (bool, error) {
		now, err := d.sample(ctx)
		if err != nil {
			return false, err
		}
		d.line.Show(now)
		if now != last || d.busy.Load() {
			last, moved = now, time.Now()
			return false, nil
		}
		quiet, err := d.quiet(ctx)
		if time.Since(moved) > patience {
			d.line.Say("nothing has moved for %s, and not all has arrived: %v", patience, err)
			return true, nil
		}
		return quiet, context.Cause(ctx) // a stream without a leader has one soon
	})
}

// sample looks at both sites once.
func (d *demo) sample(ctx context.Context) (now sample, err error) {
	now.link = *d.link.Load()
	for i, s := range d.services {
		now.sites[i].name = s.Site
		// Cheap, and enough here: numbers that were given out, not rows.
		err := s.pool.QueryRow(ctx, `select coalesce(sum(revision), 0), coalesce(pg_sequence_last_value(pg_get_serial_sequence('ledger', 'place')), 0)
			from servers`).Scan(&now.sites[i].sent, &now.sites[i].effects)
		if err != nil {
			return now, err
		}
	}
	return now, nil
}

// quiet reports whether nothing is on its way. It looks upstream first: what is empty
// there cannot feed what is looked at next. Carrying out a command makes an event.
func (d *demo) quiet(ctx context.Context) (bool, error) {
	for _, look := range []func(context.Context, *service) (bool, error){
		published,
		d.arrived(topology.ClassCommands), consumed(topology.ClassCommands),
		published,
		d.arrived(topology.ClassEventCopy), consumed(topology.ClassEventCopy), consumed(topology.ClassEvents),
	} {
		for _, s := range d.services {
			if empty, err := look(ctx, s); !empty || err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// published reports whether an outbox has nothing left to publish.
func published(ctx context.Context, s *service) (bool, error) {
	status, err := outbox.ReadStatus(ctx, s.pool, "")
	if err != nil {
		return false, err
	}
	for _, stream := range status.Streams {
		if stream.Unpublished > 0 {
			return false, nil
		}
	}
	return true, nil
}

// arrived looks whether a stream that feeds on the other site holds what is there.
func (d *demo) arrived(class topology.Class) func(context.Context, *service) (bool, error) {
	return func(ctx context.Context, s *service) (bool, error) {
		for _, stream := range s.set.Streams {
			if stream.Class != class {
				continue
			}
			here, err := s.held(ctx, stream.Name)
			if err != nil {
				return false, err
			}
			for _, other := range d.services {
				for _, source := range stream.Sources {
					if other.Site != source.Site {
						continue
					}
					there, err := other.held(ctx, source.Stream)
					if err != nil || here < there {
						return false, err
					}
				}
			}
		}
		return true, nil
	}
}

// consumed looks whether the durables on a kind of stream have nothing left to deliver
// and to hear of.
func consumed(class topology.Class) func(context.Context, *service) (bool, error) {
	return func(ctx context.Context, s *service) (bool, error) {
		for _, durable := range s.set.Consumers {
			if durable.Stream.Class != class {
				continue
			}
			c, err := s.conn.JetStream().Consumer(ctx, durable.Stream.Name, durable.Durable)
			if err != nil {
				return false, err
			}
			if info := c.CachedInfo(); info.NumPending > 0 || info.NumAckPending > 0 {
				return false, nil
			}
		}
		return true, nil
	}
}

// held is how many messages a stream holds.
func (s *service) held(ctx context.Context, name string) (uint64, error) {
	stream, err := s.conn.JetStream().Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.Msgs, nil
}
