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
	name             string
	changes, effects int64
}

// String is the line that is shown.
func (s sample) String() string {
	parts := []string{"link " + s.link}
	for _, r := range s.sites {
		parts = append(parts, fmt.Sprintf("%s: %d changes, %d effects", r.name, r.changes, r.effects))
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
		if time.Since(moved) > patience {
			d.line.Say("nothing has moved for %s, and not all has arrived", patience)
			return true, nil
		}
		return d.quiet(ctx)
	})
}

// sample looks at both sites once.
func (d *demo) sample(ctx context.Context) (now sample, err error) {
	now.link = *d.link.Load()
	for i, s := range d.services {
		now.sites[i].name = s.Site
		// Cheap, and enough here: numbers that were given out, not rows.
		err := s.pool.QueryRow(ctx, `select coalesce(sum(revision), 0), coalesce(pg_sequence_last_value(pg_get_serial_sequence('ledger', 'place')), 0)
			from servers`).Scan(&now.sites[i].changes, &now.sites[i].effects)
		if err != nil {
			return now, err
		}
	}
	return now, nil
}

// quiet reports whether nothing is on its way: the outboxes are published, the copies
// hold what the other site has, and the durables have nothing left.
func (d *demo) quiet(ctx context.Context) (bool, error) {
	for i, s := range d.services {
		status, err := outbox.ReadStatus(ctx, s.pool, "")
		if err != nil {
			return false, err
		}
		for _, stream := range status.Streams {
			if stream.Unpublished > 0 {
				return false, nil
			}
		}
		here, err := s.held(ctx, s.copied)
		if err != nil {
			return false, err
		}
		other := d.services[1-i]
		there, err := other.held(ctx, other.events)
		if err != nil || here < there {
			return false, err
		}
		for _, durable := range []topology.Consumer{s.declaration.local, s.declaration.remote} {
			c, err := s.conn.JetStream().Consumer(ctx, durable.Stream.Name, durable.Durable)
			if err != nil {
				return false, err
			}
			if info := c.CachedInfo(); info.NumPending > 0 || info.NumAckPending > 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// held is how many messages a stream holds.
func (s *service) held(ctx context.Context, declared topology.Stream) (uint64, error) {
	stream, err := s.conn.JetStream().Stream(ctx, declared.Name)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.Msgs, nil
}
