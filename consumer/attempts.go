package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// Store keeps in a database what must outlive a process: how often a handler
// was started for a message, and the messages that are parked. *inbox.Inbox
// satisfies it; its methods are safe for concurrent use. See Config.Store.
type Store interface {
	Parking
	// Open tells how many of the starts of d in a row never ended. It fails
	// while a copy of d is being handled, which is no crash.
	Open(ctx context.Context, d *envelope.Delivery) (int, error)
	// Begin commits that a handler is about to start d, and returns what is
	// known of its starts.
	Begin(ctx context.Context, d *envelope.Delivery) (envelope.Starts, error)
	// End records that the latest start ended with a verdict, and that d will
	// be tried again.
	End(ctx context.Context, d *envelope.Delivery) error
	// Undo takes the latest start back: a shutdown ended it, or it was not this
	// delivery's to handle.
	Undo(ctx context.Context, d *envelope.Delivery) error
	// Forget drops what is known of the starts: d is done.
	Forget(ctx context.Context, d *envelope.Delivery) error
}

const (
	// storeTimeout bounds one call of the Store.
	storeTimeout = 10 * time.Second
	// maxOpenStarts is how many starts of a message in a row may fail to end
	// before it is a dead letter of class crash. The first of them may have been
	// beside others; the rest ran alone.
	maxOpenStarts = 3
)

// start counts the handler start of j that is about to happen. The verdict is
// zero if the handler may run. The pass must be ended, also where it is nil.
//
// A first delivery writes nothing: a commit per start would cost a third of the
// throughput. From a redelivery on the start is committed first, so that a
// message which kills its process is found out. One with starts that never ended
// runs alone in this process: if it kills again, nobody else is to blame. Where it
// cannot, since others do not return, it is given back for a while.
func (c *Consumer) start(ctx context.Context, j *job) (verdict, *pass) {
	enter, open := c.company.join, 0
	counts := c.cfg.Store != nil && j.again
	if counts {
		err := c.ask(ctx, func(ctx context.Context) (err error) {
			open, err = c.cfg.Store.Open(ctx, j.delivery)
			return err
		})
		if err != nil {
			return c.later(j, err), nil
		}
	}
	if open > 0 {
		enter = c.company.clear
	}
	// First its place, then the start: one that only waits for its turn has not
	// started, should the process die meanwhile.
	pass, err := enter(ctx, c.gate.closing)
	switch {
	case errors.Is(err, errCrowded):
		return c.later(j, err), nil
	case err != nil:
		return verdict{action: release, err: err}, nil
	case !counts:
		return verdict{}, pass
	}
	return c.begin(ctx, j), pass
}

// later is the verdict on a message that could not be begun. It says nothing about
// the message, and is no attempt: it waits its turn.
func (c *Consumer) later(j *job, err error) verdict {
	return verdict{action: release, delay: c.policy.retry.Delay(j.m.delivered), err: err}
}

// begin commits the start. The verdict is zero if the handler may run.
func (c *Consumer) begin(ctx context.Context, j *job) (v verdict) {
	var starts envelope.Starts
	err := c.ask(ctx, func(ctx context.Context) (err error) {
		starts, err = c.cfg.Store.Begin(ctx, j.delivery)
		return err
	})
	if err != nil {
		return c.later(j, err)
	}
	if starts.Handled {
		return verdict{action: ack, duplicate: true}
	}
	if j.m.parked != nil { // what the store forgot, the row remembers
		starts.Count = max(starts.Count, j.m.delivered)
	}
	j.recorded, j.delivery.Attempt = true, starts.Count
	switch {
	case starts.Open >= maxOpenStarts:
		v = verdict{action: bury, class: envelope.ClassCrash, err: fmt.Errorf(
			"consumer: %d handler starts in a row never ended; the process died or was killed each time", starts.Open)}
	case starts.Count > c.cfg.MaxAttempts:
		v = verdict{action: bury, class: envelope.ClassExhausted, err: fmt.Errorf(
			"consumer: started %d times, at most %d attempts are made", starts.Count-1, c.cfg.MaxAttempts)}
	}
	return v
}

// ask calls the store, for a bounded time.
func (c *Consumer) ask(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return protect(func() error { return call(ctx) })
}

// ended tells the store how the latest start of a message ended. A failed one that
// the store cannot be told of is taken back as soon as it can: the outage that the
// store suffers is the handler's too, and a start without an end would look like
// a crash. Until then the message stays in progress; a shutdown does not wait.
func (c *Consumer) ended(ctx context.Context, j *job, v verdict) {
	if c.cfg.Store == nil || j.delivery == nil || j.begun.IsZero() && !j.recorded {
		return
	}
	tell := c.cfg.Store.Forget
	switch {
	case v.action == retry:
		tell = c.cfg.Store.End
	case !j.recorded:
		return // nothing is known of it
	case v.action == release, v.elsewhere:
		tell = c.cfg.Store.Undo
	}
	// A shutdown that interrupts handlers must not keep this from being told.
	err := c.ask(context.WithoutCancel(ctx), func(ctx context.Context) error { return tell(ctx, j.delivery) })
	if err != nil {
		c.logFailure(ctx, j, "consumer: the store did not take the end of an attempt", verdict{err: err})
	}
	if err != nil && v.action == retry && j.recorded {
		c.watchMass(j, v) // now: later it would be news of an outage that is over
		c.takeBack(ctx, j)
	}
}

// takeBack tries to take the latest start of a message back until the store lets
// it, or the consumer stops.
func (c *Consumer) takeBack(ctx context.Context, j *job) {
	for attempt := 1; ; attempt++ {
		timer := time.NewTimer(refusalDelays().Delay(attempt))
		select {
		case <-timer.C:
			if c.ask(ctx, func(ctx context.Context) error { return c.cfg.Store.Undo(ctx, j.delivery) }) == nil {
				return
			}
		case <-c.gate.closing:
			timer.Stop()
			return
		}
	}
}
