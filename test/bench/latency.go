package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

const pacedRate = 2000 // events per second

// latencyRows measures the time from the return of a commit to the moment at
// which the stream stored the message, by the server's own stamp: the clock is
// the same. One event at a time with an idle relay, then many.
func latencyRows(ctx context.Context, b *bench) ([]Row, error) {
	db, err := b.database(ctx, "latency")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	var p50, p99, loaded []float64
	for round := range b.rounds {
		single, err := b.withRelay(ctx, db, b.singleEvents)
		if err != nil {
			return nil, fmt.Errorf("one at a time: %w", err)
		}
		paced, err := b.withRelay(ctx, db, b.pacedEvents)
		if err != nil {
			return nil, fmt.Errorf("paced: %w", err)
		}
		p50, p99 = append(p50, percentile(single, 0.5)), append(p99, percentile(single, 0.99))
		loaded = append(loaded, percentile(paced, 0.99))
		b.logf("  round %d/%d  p50 %.2f ms, p99 %.2f ms; at %d/s p99 %.2f ms", round+1, b.rounds,
			p50[round], p99[round], pacedRate, loaded[round])
	}
	return []Row{
		limitRow("latency/p50", "commit → stored, idle relay, one event, p50", "ms", 3, p50),
		limitRow("latency/p99", "commit → stored, idle relay, one event, p99", "ms", 15, p99),
		limitRow("latency/p99-2000", "commit → stored at 2,000 events/s, p99", "ms", 50, loaded),
	}, nil
}

// trial is what a measurement of latency works with.
type trial struct {
	db      *database
	out     *outbox.Outbox
	arrived <-chan arrival
}

// arrival is a message as the stream stored it.
type arrival struct {
	n  int
	at time.Time
}

// withRelay runs measure beside a relay, on a new stream that is watched.
func (b *bench) withRelay(ctx context.Context, db *database, measure func(context.Context, trial) ([]float64, error)) ([]float64, error) {
	if err := markPublished(ctx, db); err != nil {
		return nil, err
	}
	conn, err := b.broker(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.NATS().Close()
	arrived, err := watch(ctx, conn.JetStream())
	if err != nil {
		return nil, err
	}
	out, err := newOutbox()
	if err != nil {
		return nil, err
	}
	stop, err := startRelay(ctx, db, conn)
	if err != nil {
		return nil, err
	}
	t := trial{db, out, arrived}
	if err := t.warmUp(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	latencies, err := measure(ctx, t)
	return latencies, errors.Join(err, stop())
}

// watch reports what the stream stores until the connection closes.
func watch(ctx context.Context, js jetstream.JetStream) (<-chan arrival, error) {
	consumer, err := js.OrderedConsumer(ctx, stream().Name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	arrived := make(chan arrival, 1<<16)
	_, err = consumer.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		if err != nil {
			return
		}
		var data counted
		if e, err := envelope.Decode(m.Data()); err == nil && json.Unmarshal(e.Data, &data) == nil {
			arrived <- arrival{data.N, meta.Timestamp}
		}
	})
	return arrived, err
}

// commit stores event n and returns the time at which the commit returned.
func (t trial) commit(ctx context.Context, n int) (time.Time, error) {
	err := pgx.BeginFunc(ctx, t.db, func(tx pgx.Tx) error { return t.out.Enqueue(origin(ctx), tx, draft(key(n), n)) })
	return time.Now(), err
}

// next waits for an arrival.
func (t trial) next(ctx context.Context) (arrival, error) {
	select {
	case a := <-t.arrived:
		return a, nil
	case <-time.After(time.Minute):
		return arrival{}, errors.New("a message did not arrive within a minute")
	case <-ctx.Done():
		return arrival{}, context.Cause(ctx)
	}
}

// warmUp makes sure that the relay leads and has published once.
func (t trial) warmUp(ctx context.Context) error {
	if _, err := t.commit(ctx, -1); err != nil {
		return err
	}
	_, err := t.next(ctx)
	return err
}

// singleEvents commits one event after the other, each after a pause that is
// long enough for the relay to rest and hits its polls at random.
func (b *bench) singleEvents(ctx context.Context, t trial) ([]float64, error) {
	var latencies []float64
	for n := range b.sizes.events {
		if err := pause(ctx, 80*time.Millisecond+rand.N(40*time.Millisecond)); err != nil {
			return nil, err
		}
		committed, err := t.commit(ctx, n)
		if err != nil {
			return nil, err
		}
		a, err := t.next(ctx)
		if err != nil {
			return nil, err
		}
		latencies = append(latencies, milliseconds(a.at.Sub(committed)))
	}
	return latencies, nil
}

// pacedEvents commits at a steady rate from several writers, each of which
// keeps to its own time table, so that a slow commit delays no other.
func (b *bench) pacedEvents(ctx context.Context, t trial) ([]float64, error) {
	const writers = 20
	each := int(b.sizes.window.Seconds() * pacedRate / writers)
	committed := make([]time.Time, writers*each)
	faults := make(chan error, writers)
	began := time.Now()
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				n := i*writers + w
				due := began.Add(time.Duration(n) * time.Second / pacedRate)
				if err := pause(ctx, time.Until(due)); err != nil {
					faults <- err
					return
				}
				var err error
				if committed[n], err = t.commit(ctx, n); err != nil {
					faults <- err
					return
				}
			}
			faults <- nil
		})
	}
	group.Wait()
	if rate := float64(len(committed)) / time.Since(began).Seconds(); rate < 0.9*pacedRate {
		b.logf("  the machine committed only %.0f events/s of %d", rate, pacedRate)
	}
	var err error
	for range writers {
		err = errors.Join(err, <-faults)
	}
	if err != nil {
		return nil, err
	}
	return t.compare(ctx, committed)
}

// compare waits until everything has arrived.
func (t trial) compare(ctx context.Context, committed []time.Time) ([]float64, error) {
	latencies := make([]float64, 0, len(committed))
	for range committed {
		a, err := t.next(ctx)
		if err != nil {
			return nil, err
		}
		latencies = append(latencies, milliseconds(a.at.Sub(committed[a.n])))
	}
	return latencies, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
