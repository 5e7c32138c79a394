package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// receiveParked takes a parked message that is due, the first of its key, for the
// active instance.
func (c *Consumer) receiveParked(l *lane, m *message) {
	t := c.order.current.Load()
	admitted := c.gate.arrive(l)
	if !admitted || t == nil || !t.stands() {
		c.release(m)
		if admitted {
			c.depart()
		}
		return
	}
	ticket := t.lanes.arriveAside(m)
	c.crew.run(func() { c.serve(t, ticket, m) })
}

// parkHead parks a message whose next attempt is far away, so that neither it nor
// its followers hold places of the durable: those are parked behind it. It returns
// how long the message has to wait here instead, negative if it is parked.
func (c *Consumer) parkHead(t *term, ticket *ticket, j *job, v verdict) time.Duration {
	if !ticket.keyed || v.delay <= c.cfg.ParkAfter {
		return v.delay
	}
	err := errReplay
	if j.letter == "" {
		err = c.lot.full()
	}
	if err == nil {
		err = c.storeParked(t, ticket, j, v.err, func(ctx context.Context, row *envelope.Parked) error {
			return c.cfg.Store.Park(ctx, row, v.delay)
		})
		// Also after an error: its outcome may be unknown, and follow finds out.
		c.mark(t, ticket.key)
	}
	if err != nil {
		c.logFailure(t.ctx, j, "consumer: a message could not be parked; it waits with its followers", verdict{err: err})
		return min(v.delay, MaxRetryAfter)
	}
	c.lot.parked(v.delay)
	return -1
}

var errReplay = errors.New("consumer: replays of an ordered consumer are not parked")

// follow parks a message whose key is parked behind the others of its key, and one
// whose key waits for an operator: the store hands it out when it is the first of
// its key and the operator has decided. The verdict is zero if it may be attempted.
func (c *Consumer) follow(t *term, ticket *ticket, j *job) verdict {
	for attempt := 1; ticket.aside || ticket.keyed && ticket.sequence > 0 && t.lanes.isParked(ticket.key); attempt++ {
		var parked bool
		var err error
		if !ticket.aside {
			err = c.lot.full()
		}
		if err == nil {
			err = c.storeParked(t, ticket, j, errBehind, func(ctx context.Context, row *envelope.Parked) (err error) {
				row.Attempts, parked = 0, true
				if ticket.aside {
					return c.cfg.Store.Park(ctx, row, 0)
				}
				parked, err = c.order.store.ParkBehind(ctx, row)
				return err
			})
		}
		switch {
		case err == nil && parked:
			c.mark(t, ticket.key)
			c.lot.parked(0)
			return verdict{action: moved}
		case err == nil:
			t.lanes.unpark(ticket.key)
		default:
			if !c.rest(t, refusalDelays().Delay(attempt)) {
				return verdict{action: release, err: err}
			}
			if t.lanes.yield(ticket); !c.awaitTurn(t, ticket) {
				return verdict{action: release, err: err}
			}
		}
	}
	return verdict{}
}

var errBehind = errors.New("consumer: an earlier message of its key is parked, or a dead letter that holds it")

// mark has the next message of a key ask whether the key is parked. Most marks are
// for nothing, and of a key of which nothing comes any more they would stay: now and
// then the store is asked for all.
func (c *Consumer) mark(t *term, key string) {
	if !t.lanes.park(key) {
		return
	}
	upTo := t.lanes.marked()
	var keys []string
	err := c.ask(t.ctx, func(ctx context.Context) (err error) {
		keys, err = c.order.store.ParkedKeys(ctx, c.cfg.Consumer.Durable)
		return err
	})
	if err != nil {
		upTo = 0 // all stay, until they have doubled
	}
	t.lanes.unmark(upTo, keys)
}

// storeParked has the store keep the message of j, under the lease.
func (c *Consumer) storeParked(t *term, ticket *ticket, j *job, why error, keep func(context.Context, *envelope.Parked) error) error {
	err := c.ask(context.WithoutCancel(t.ctx), func(ctx context.Context) error {
		row, err := c.parkedRow(ctx, j, why)
		if err != nil {
			return err
		}
		row.Key, row.Fence = ticket.key, t.fence
		return keep(ctx, row)
	})
	if errors.Is(err, envelope.ErrFenced) {
		t.end(fmt.Errorf("%w: %w", errLeaseLost, err))
	}
	return err
}
