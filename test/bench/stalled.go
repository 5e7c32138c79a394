package main

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

// stalledRows measures what a backlog costs a consumer that does not get on: the
// peak memory of its process with a small one beside that with a large one.
func stalledRows(ctx context.Context, b *bench) ([]Row, error) {
	small, large := b.sizes.stalled/100, b.sizes.stalled
	f, err := b.interleave(ctx,
		side{thousands(int64(small)) + " messages", b.stall(small)},
		side{thousands(int64(large)) + " messages", b.stall(large)},
	)
	if err != nil {
		return nil, err
	}
	return []Row{ratioRow("stalled/memory", "peak memory of a consumer with stalled handlers, backlog of "+
		thousands(int64(small))+" / of "+thousands(int64(large)), "MB", 0.9, f[0], f[1])}, nil
}

// stall measures the peak memory of a consumer with a backlog of n, in MB.
func (b *bench) stall(n int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		feed, err := b.feed(ctx, n)
		if err != nil {
			return 0, err
		}
		defer feed.close()
		c, err := b.start(roleStalled)
		if err != nil {
			return 0, err
		}
		err = errors.Join(c.awaitBegun(ctx), pause(ctx, b.sizes.quiet/4))
		u, usageErr := c.usage()
		c.kill() // its handlers would not end
		return float64(u.PeakBytes) / 1e6, errors.Join(err, usageErr)
	}
}

// stalledChild is a consumer whose handlers never end.
func stalledChild() error {
	ctx := context.Background()
	conn, err := natsconn.Dial(ctx, natsconn.Config{URL: os.Getenv(childNATS), Logger: silent()})
	if err != nil {
		return err
	}
	dead, err := dlq.Open(ctx, conn.JetStream(), subject.Plattform, dlq.Config{Logger: silent()})
	if err != nil {
		return err
	}
	var held atomic.Int64
	stalled, err := consumer.New(conn.JetStream(), dead,
		consumer.Config{Consumer: reader(inFlight), Logger: silent(), HandlerTimeout: time.Hour},
		consumer.On(counter, func(ctx context.Context, _ envelope.Received[counted]) error {
			held.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}))
	if err != nil {
		return err
	}
	go new(counters).answer(os.Stdin, func() bool { return held.Load() == inFlight })
	return stalled.Run(ctx)
}
