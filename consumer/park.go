package consumer

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
)

// Parking keeps in a database the messages whose next attempt is far away, so
// that they hold none of the durable's MaxAckPending places meanwhile. It is part
// of a Store; *inbox.Inbox satisfies it. Its methods are safe for concurrent use.
//
// A claim is what a process handles a parked message under. One that ran out may
// be somebody else's; what is done under it then has no effect.
type Parking interface {
	// Park commits that p waits until delay has passed. What is parked already
	// stays as it is.
	Park(ctx context.Context, p *envelope.Parked, delay time.Duration) error
	// SurveyParked counts the parked messages of a durable, at most up to limit,
	// and tells how long it is until the next is due. With heads, only the first
	// message of each key counts as due.
	SurveyParked(ctx context.Context, durable string, limit int, heads bool) (count int, next time.Duration, err error)
	// ClaimParked hands at most limit messages that are due to the caller, for
	// the time of the lease. With heads, only the first of each key.
	ClaimParked(ctx context.Context, durable string, limit int, lease time.Duration, heads bool) ([]*envelope.Parked, error)
	// ExtendParked lets the caller's claim last for another lease.
	ExtendParked(ctx context.Context, p *envelope.Parked, lease time.Duration) error
	// ReturnParked ends the claim; p is due again after delay.
	ReturnParked(ctx context.Context, p *envelope.Parked, delay time.Duration) error
	// Unpark removes p, which is done.
	Unpark(ctx context.Context, p *envelope.Parked) error
}

// parks reports whether a long delay may move a message to the Store. With
// MaxAckPending 1 it must not: whoever declares that wants the followers of a
// failing message to wait. With an Order they are parked behind it.
func (c Config) parks() bool {
	return c.Store != nil && (c.Consumer.MaxAckPending != 1 || c.Order != nil)
}

// maxDelay is the longest delay between two attempts.
func (c Config) maxDelay() time.Duration {
	if c.parks() {
		return MaxParkedDelay
	}
	return MaxRetryAfter
}

// again lets a failed message be tried again after the verdict's delay: parked,
// if that is long, or held by the server.
func (c *Consumer) again(ctx context.Context, j *job, v verdict) {
	c.count.retried.Add(1)
	c.logFailure(ctx, j, "consumer: attempt failed", v, "delay", v.delay)
	switch {
	case j.m.parked != nil: // acknowledged long ago, so it waits where it is
		j.m.parked.row.Attempts = j.delivery.Attempt
		j.m.parked.row.Reason = clip(v.err.Error(), maxErrorText)
		c.sent(j.m, j.m.nak(v.delay))
	case c.cfg.parks() && v.delay > c.cfg.ParkAfter:
		c.park(ctx, j, v)
	default:
		c.sent(j.m, j.m.nak(v.delay))
	}
}

// park moves a message to the store: there first, so that a crash in between
// leaves it in both places, and the redelivery of what is parked is acknowledged
// without a handler. Where that fails the server holds it, for as long as it may.
func (c *Consumer) park(ctx context.Context, j *job, v verdict) {
	err := c.lot.full()
	if err == nil {
		err = c.ask(context.WithoutCancel(ctx), func(ctx context.Context) error {
			row, err := c.parkedRow(ctx, j, v.err)
			if err != nil {
				return err
			}
			return c.cfg.Store.Park(ctx, row, v.delay)
		})
	}
	if err != nil {
		delay := min(v.delay, MaxRetryAfter)
		c.logFailure(ctx, j, "consumer: a message could not be parked; the server holds it", verdict{err: err}, "delay", delay)
		c.sent(j.m, j.m.nak(delay))
		return
	}
	c.lot.parked(v.delay)
	c.ack(j)
}

// parkedRow is a delivery as it is parked.
func (c *Consumer) parkedRow(ctx context.Context, j *job, why error) (*envelope.Parked, error) {
	created, err := c.streamCreated(ctx)
	if err != nil {
		return nil, err
	}
	return &envelope.Parked{
		Source: j.envelope.Source.String(), MessageID: j.envelope.ID, LetterID: j.letter,
		Durable: c.cfg.Consumer.Durable, Key: j.envelope.Subject,
		Stream: j.stream, StreamCreated: created, Sequence: j.seq, StoredAt: j.m.storedAt,
		Subject: j.m.raw.Subject, Header: j.m.header(), Data: j.m.raw.Data,
		Attempts: j.delivery.Attempt, Reason: clip(why.Error(), maxErrorText),
	}, nil
}

// streamCreated tells the consumer's stream from another of the same name. It is
// asked for when the first message is parked, and again after the durable was
// looked up anew.
func (c *Consumer) streamCreated(ctx context.Context) (time.Time, error) {
	if known := c.created.Load(); known != nil {
		return *known, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	c.count.requests.Add(1)
	stream, err := c.js.Stream(ctx, c.cfg.Consumer.Stream.Name)
	if err != nil {
		return time.Time{}, fmt.Errorf("consumer: look up stream %q: %w", c.cfg.Consumer.Stream.Name, err)
	}
	created := stream.CachedInfo().Created
	c.created.Store(&created)
	return created, nil
}

// parkedMessage settles a message of the store, under this process's claim.
type parkedMessage struct {
	c         *Consumer
	row       *envelope.Parked
	extending chan struct{} // holds one token while the claim is being extended
}

// newParkedMessage makes a delivery of a parked message that is due.
func (c *Consumer) newParkedMessage(row *envelope.Parked) *message {
	return &message{
		raw:    &nats.Msg{Subject: row.Subject, Header: nats.Header(row.Header), Data: row.Data},
		replay: row.LetterID != "", stream: row.Stream, sequence: row.Sequence, storedAt: row.StoredAt,
		delivered: row.Attempts + 1,
		parked:    &parkedMessage{c: c, row: row, extending: make(chan struct{}, 1)},
	}
}

// done ends it. Where the transaction of the effect did, there is nothing left.
func (p *parkedMessage) done() error {
	return p.ask(func(ctx context.Context) error { return p.c.cfg.Store.Unpark(ctx, p.row) })
}

// giveBack makes it due again after a delay, here or in another replica.
func (p *parkedMessage) giveBack(delay time.Duration) error {
	err := p.ask(func(ctx context.Context) error { return p.c.cfg.Store.ReturnParked(ctx, p.row, delay) })
	if err == nil {
		p.c.lot.expect(delay)
	}
	return err
}

// extend keeps the claim. It does not wait for the store: a beat that comes late,
// after the message was settled, names a claim that is over. One at a time.
func (p *parkedMessage) extend() error {
	select {
	case p.extending <- struct{}{}:
	default:
		return nil
	}
	go func() {
		defer func() { <-p.extending }()
		// A failure is made up for by the next beat; a claim that ran out is
		// noticed when the message is settled.
		_ = p.ask(func(ctx context.Context) error {
			return p.c.cfg.Store.ExtendParked(ctx, p.row, p.c.cfg.Consumer.AckWait)
		})
	}()
	return nil
}

// ask calls the store also during a shutdown, for a bounded time.
func (p *parkedMessage) ask(call func(context.Context) error) error {
	return p.c.ask(context.Background(), call)
}
