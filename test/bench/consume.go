package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// inFlight is how many messages every consumer may hold unacknowledged, except
// where the raw client is tried with more.
const inFlight = 256

// consumeRows measures a consumer whose handler does nothing beside the client
// alone, which does not look at what it gets, and beside Watermill's subscriber.
func consumeRows(ctx context.Context, b *bench) ([]Row, error) {
	feed, err := b.feed(ctx, b.sizes.consumed)
	if err != nil {
		return nil, err
	}
	defer feed.close()
	f, err := b.interleave(ctx,
		side{"consumer", feed.consume},
		side{"Messages and Ack, 256 at a time", feed.raw(256, 256)},
		side{"Messages and Ack, 500 of 5,000", feed.raw(500, 5_000)},
		side{"Messages and Ack, 4,000 of 10,000", feed.raw(4_000, 10_000)},
		side{"Watermill, one subscriber", feed.watermill(1, false)},
		side{"Watermill, 16 subscribers", feed.watermill(16, false)},
		side{"Watermill, unawaited acks", feed.watermill(1, true)},
	)
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("consume/raw", "consumer with full decode / raw Messages and Ack without", "msg/s", 0.5, f[0], best(f[1:4]...)),
		ratioRow("consume/watermill", "consumer / Watermill JetStream subscriber as it comes", "msg/s", 3, f[0], f[4]),
		ratioRow("consume/watermill16", "consumer / 16 Watermill JetStream subscribers", "msg/s", 0, f[0], f[5]),
		ratioRow("consume/watermillasync", "consumer / Watermill JetStream subscriber that awaits no acks", "msg/s", 0, f[0], f[6]),
	}, nil
}

// feed is a stream with a backlog that each measurement consumes from the start.
type feed struct {
	conn *natsconn.Conn
	dead *dlq.Queue
	size int
	// trace returns the traceparent of the i-th message; nil for none.
	trace func(i int) string
}

// feed publishes n messages, each with an id of its own, over the 1,000 keys.
func (b *bench) feed(ctx context.Context, n int) (*feed, error) {
	return b.feedOf(ctx, &feed{size: n})
}

// feedOf fills f.
func (b *bench) feedOf(ctx context.Context, f *feed) (*feed, error) {
	conn, err := b.broker(ctx)
	if err != nil {
		return nil, err
	}
	f.conn = conn
	if err := f.prepare(ctx); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *feed) close() { f.conn.NATS().Close() }

func (f *feed) prepare(ctx context.Context) error {
	js := f.conn.JetStream()
	err := f.rewound(ctx, inFlight) // another group may have left a durable of its own
	if err != nil {
		return err
	}
	if f.dead, err = dlq.Open(ctx, js, subject.Plattform, dlq.Config{Logger: silent()}); err != nil {
		return err
	}
	return publishBacklog(origin(ctx), js, f.size, f.trace)
}

// publishBacklog stores n messages, each with an id of its own, over the 1,000 keys.
// trace returns the traceparent of the i-th; nil for none.
func publishBacklog(ctx context.Context, js jetstream.JetStream, n int, trace func(i int) string) error {
	for i := range n {
		m, err := envelope.New(ctx, subject.Maskin, draft(key(i), i))
		if err != nil {
			return err
		}
		if trace != nil {
			m.Traceparent = trace(i)
		}
		data, err := m.Envelope.Encode()
		if err != nil {
			return err
		}
		msg := &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data}
		if _, err := js.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute)); err != nil {
			return err
		}
	}
	return awaitStored(ctx, js, n)
}

// reader is the durable that is measured; it reads the stream from the start.
func reader(pending int) topology.Consumer {
	return topology.Consumer{
		Durable: "plattform__from_maskin", Stream: stream(), Filter: subject.EventsOf(subject.Maskin),
		MaxAckPending: pending, Start: topology.StartFirst(),
	}
}

// readerSet is what the reading service declares.
func readerSet(pending int) topology.Set {
	limits := topology.Limits{MaxBytes: 1 << 30}
	return topology.Set{
		Service:   subject.Plattform,
		Streams:   []topology.Stream{stream(), topology.DeadLetters(subject.Plattform, limits), topology.DeadLetterOps(subject.Plattform, limits)},
		Consumers: []topology.Consumer{reader(pending)},
	}
}

// rewound makes the durable anew, so that it begins with the first message.
func (f *feed) rewound(ctx context.Context, pending int) error {
	js, declared := f.conn.JetStream(), reader(pending)
	for stream, name := range map[string]string{declared.Stream.Name: declared.Durable, declared.ReplayStream(): declared.ReplayDurable()} {
		err := js.DeleteConsumer(ctx, stream, name)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
	}
	return topology.Ensure(ctx, js, readerSet(pending))
}

// consume measures our consumer with a handler that counts.
func (f *feed) consume(ctx context.Context) (float64, error) {
	left := newCountdown(f.size)
	return f.run(ctx, consumer.Config{}, left, consumer.On(counter, func(context.Context, envelope.Received[counted]) error {
		left.done()
		return nil
	}))
}

// run runs a consumer until the countdown is over and all is acknowledged, and
// returns messages per second.
func (f *feed) run(ctx context.Context, cfg consumer.Config, left *countdown, routes ...envelope.Route) (float64, error) {
	if err := f.rewound(ctx, inFlight); err != nil {
		return 0, err
	}
	cfg.Consumer, cfg.Logger = reader(inFlight), silent()
	c, err := consumer.New(f.conn.JetStream(), f.dead, cfg, routes...)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- c.Run(ctx) }()
	err = left.wait(ctx)
	elapsed := time.Since(began)
	cancel()
	return float64(f.size) / elapsed.Seconds(), errors.Join(err, <-ended)
}

// raw measures the client's own loop: requests for so many messages at a time, so
// many unacknowledged, and nothing done with them.
func (f *feed) raw(batch, pending int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if err := f.rewound(ctx, pending); err != nil {
			return 0, err
		}
		durable, err := f.conn.JetStream().Consumer(ctx, stream().Name, reader(pending).Durable)
		if err != nil {
			return 0, err
		}
		began := time.Now()
		if err := readAll(f.conn, durable, batch, f.size); err != nil {
			return 0, err
		}
		return float64(f.size) / time.Since(began).Seconds(), nil
	}
}

// readAll reads and acknowledges n messages with the client alone.
func readAll(conn *natsconn.Conn, durable jetstream.Consumer, batch, n int) error {
	messages, err := durable.Messages(jetstream.PullMaxMessages(batch))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for left := n; left > 0; left-- {
		m, err := messages.Next()
		if errors.Is(err, jetstream.ErrNoHeartbeat) {
			left++ // the client asks again
			continue
		}
		if err != nil {
			return err
		}
		if err := m.Ack(); err != nil {
			return err
		}
	}
	return conn.NATS().Flush()
}

// countdown tells when so many messages were handled.
type countdown struct {
	left atomic.Int64
	over chan struct{}
}

func newCountdown(n int) *countdown {
	c := &countdown{over: make(chan struct{})}
	c.left.Store(int64(n))
	return c
}

func (c *countdown) done() {
	if c.left.Add(-1) == 0 {
		close(c.over)
	}
}

// wait returns when the count is over, and an error after ten minutes.
func (c *countdown) wait(ctx context.Context) error {
	limit := time.NewTimer(10 * time.Minute)
	defer limit.Stop()
	select {
	case <-c.over:
		return nil
	case <-limit.C:
		return fmt.Errorf("%d messages were not handled within 10 minutes", c.left.Load())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
