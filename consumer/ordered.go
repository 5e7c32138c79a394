package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// receiveOrdered takes a message off the subscription, as receive does, for the
// active instance of an ordered consumer. What comes to another is left alone: the
// next reset of the durable brings it to whom it belongs. A replay is given back,
// since nobody resets its durable.
func (c *Consumer) receiveOrdered(d durable, raw *nats.Msg, stray bool) {
	t := c.order.current.Load()
	m, err := newMessage(c.js.Conn(), raw, d.replay)
	if err == nil {
		c.count.arrived(m)
	}
	if err != nil || t == nil || !t.stands() {
		if !stray {
			c.gate.forgo(d.lane, 1)
		}
		if err == nil && d.replay {
			c.releaseAfter(m, strayDelay)
		}
		return
	}
	admit := c.gate.arrive
	if stray {
		admit = c.gate.adopt
	}
	if !admit(d.lane) {
		c.turnAway(t, m)
		return
	}
	if d.replay {
		ticket := t.lanes.arriveAside(m)
		c.crew.run(func() { c.serve(t, ticket, m) })
		return
	}
	switch f, ticket := t.lanes.arrive(m, raw.Sub.Subject); f {
	case taken:
		c.crew.run(func() { c.serve(t, ticket, m) })
		return
	case missed:
		c.pulls[0].stumble(errMissed)
	case known:
		c.sent(m, m.ack())
	}
	c.depart()
}

// turnAway refuses a delivery that finds no room: nobody asked for it, or the gate
// is closed.
func (c *Consumer) turnAway(t *term, m *message) {
	if !m.replay {
		t.lanes.shut() // those behind it must not be handled before it
	}
	switch {
	case c.gate.isClosed():
		c.release(m)
	case m.replay:
		c.releaseAfter(m, strayDelay)
	default:
		c.pulls[0].stumble(errMissed)
	}
}

// serve takes one message of an ordered consumer from arrival to settlement. If
// the term ends before, it is left as it is, and at a shutdown given back.
func (c *Consumer) serve(t *term, ticket *ticket, m *message) {
	defer c.depart()
	beat := &m.beat
	beat.start(c.beats, func() {
		if t.stands() { // another's message is not ours to keep
			_ = m.inProgress()
		}
	})
	defer beat.stop()
	j, v := c.open(m)
	if c.place(t, j, &v, ticket); v.action == 0 {
		j.delivery.Fence, j.delivery.Redelivered, j.again = t.fence, ticket.again, ticket.again
	}
	t.lanes.open(ticket)
	if !c.awaitTurn(t, ticket) {
		v = verdict{action: release, err: errShutdown}
	} else if aside := c.follow(t, ticket, j); aside.action != 0 {
		v = aside // whatever it is: it is judged when it is the first of its key
	} else if v.action == 0 {
		v = c.tryInPlace(t, ticket, j, beat)
	} else if v.action != release { // a replay that waits for another letter failed nowhere
		c.watchMass(j, v)
	}
	c.conclude(t, ticket, j, v, beat)
}

// place finds the lane of a message. One that could not be decoded, or
// contradicts itself, has none: it may not hold up a key that it only claims.
func (c *Consumer) place(t *term, j *job, v *verdict, ticket *ticket) {
	ticket.letter = j.letter
	var key string
	if j.delivery != nil {
		var err error
		if key, err = c.order.orderKey(j.envelope); err != nil {
			*v = verdict{action: bury, class: envelope.ClassPoison, err: err}
		} else {
			ticket.keyed, ticket.key = true, key
		}
	}
	if j.letter == "" && c.order.skips(key, ticket.keyed) {
		ticket.keyed, *v = false, verdict{action: skip}
		return
	}
	if !ticket.keyed {
		return
	}
	if j.letter != "" && t.lanes.heldByOther(key, j.letter) {
		// It would wait for a decision about another letter, and keep the replay
		// that may be that decision from being fetched.
		ticket.keyed, *v = false, verdict{action: release, delay: heldDelay, err: errHeld}
		return
	}
	ticket.source, ticket.id = j.envelope.Source.String(), j.envelope.ID
	if c.order.HoldKey {
		j.hold = func(ctx context.Context, letter string) error { return c.holdKey(ctx, t, ticket, letter) }
	}
}

// A replay whose key waits for another letter is given back for a while.
const heldDelay = 5 * time.Second

var errHeld = errors.New("consumer: the key waits for another letter; replay or close that one first")

// holdKey keeps the key of a new dead letter waiting. A replay that fails again
// changes nothing: its key waits still, or has gone on long ago.
func (c *Consumer) holdKey(ctx context.Context, t *term, ticket *ticket, letter string) error {
	if ticket.letter != "" {
		return nil
	}
	h := envelope.HeldKey{Key: ticket.key, LetterID: letter, Source: ticket.source, MessageID: ticket.id}
	if err := c.order.store.Hold(ctx, t.fence, h); err != nil {
		return fmt.Errorf("hold key of letter %s: %w", letter, err)
	}
	t.lanes.hold(h)
	return nil
}

// awaitTurn returns whether it is the message's turn, and not the end.
func (c *Consumer) awaitTurn(t *term, ticket *ticket) bool {
	select {
	case <-ticket.turn:
		return true
	default:
	}
	select {
	case <-ticket.turn:
		return true
	case <-c.gate.closing:
	case <-t.ctx.Done():
	}
	return false
}

// tryInPlace attempts a message until there is a verdict other than to try it
// again. It keeps its turn meanwhile, so that nothing of its key passes it, and
// between attempts no worker.
func (c *Consumer) tryInPlace(t *term, ticket *ticket, j *job, beat *heartbeat) verdict {
	for {
		if v := c.follow(t, ticket, j); v.action != 0 {
			return v
		}
		if !c.mass.enter(t.ctx) {
			return verdict{action: release, err: errShutdown}
		}
		v := verdict{action: release, err: errLeaseLost}
		if t.stands() {
			v = c.attempt(t.ctx, j, beat, c.protectAside)
		}
		c.gate.leave()
		if v.action != ack && t.ctx.Err() != nil {
			c.mass.spared() // a probe that said nothing; the next term needs one
			return verdict{action: release, err: v.err}
		}
		if errors.Is(v.err, envelope.ErrFenced) {
			t.end(fmt.Errorf("%w: %w", errLeaseLost, v.err))
		}
		if v.duplicate && ticket.keyed {
			// Neither the inbox nor the store tells a message that is parked from one
			// that was handled. If it is parked, its followers must be, too.
			c.mark(t, ticket.key)
		}
		if v.action == ack {
			v = c.goOn(t, ticket, v)
		}
		c.watchMass(j, v)
		switch {
		case v.action == retry && j.m.parked != nil:
			return v // it waits where it is
		case v.action == retry:
			c.count.retried.Add(1)
			c.logFailure(t.ctx, j, "consumer: attempt failed", v, "delay", v.delay)
			j.traced(v)
			if v.delay = c.parkHead(t, ticket, j, v); v.delay < 0 {
				return verdict{action: moved}
			}
		case v.action == release && v.delay > 0:
			c.logFailure(t.ctx, j, "consumer: an attempt could not be begun", v, "delay", v.delay)
		default:
			return v
		}
		if !c.rest(t, v.delay) {
			return verdict{action: release, err: errShutdown}
		}
		// The handler was given the delivery, so it gets another.
		d := *j.delivery
		j.delivery, j.again, j.recorded, j.watched = &d, true, false, false
	}
}

// rest waits before the next attempt; it is false at the end.
func (c *Consumer) rest(t *term, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.gate.closing:
	case <-t.ctx.Done():
	}
	return false
}

// goOn lets the key of a dead letter go on whose message was handled after all.
func (c *Consumer) goOn(t *term, ticket *ticket, v verdict) verdict {
	letter := t.lanes.decided(ticket, v.duplicate)
	if letter == "" {
		return v
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), storeTimeout)
	defer cancel()
	if err := c.unhold(ctx, t, letter); err != nil {
		// The effect is there: what is repeated is only this.
		return verdict{action: release, delay: time.Second, err: err}
	}
	return v
}

// conclude carries a verdict out, and gives the turn to the next of the key.
func (c *Consumer) conclude(t *term, ticket *ticket, j *job, v verdict, beat *heartbeat) {
	defer j.traced(v) // unless it is settled, which knows more
	if v.action == release {
		beat.stop()
		c.count.released.Add(1)
		if t.stands() || j.m.replay { // a shutdown; after a take-over it is not ours to give
			c.sent(j.m, j.m.nak(v.delay))
			c.traceSettlement(j, v)
		}
		return
	}
	if !t.stands() {
		if j.m.replay {
			beat.stop()
			c.release(j.m)
		}
		return
	}
	if v.action == moved {
		beat.stop()
		c.ack(j)
		c.traceSettlement(j, v)
		t.lanes.leave(ticket)
		return
	}
	if c.settle(t.ctx, j, v, beat); t.ctx.Err() == nil {
		t.lanes.leave(ticket)
	}
	if j.m.parked != nil && v.action != retry {
		c.lot.expect(0) // the next of its key is due
	}
}

// rebase resets the durable to its ack floor, so that this instance gets all that
// is not settled, in the order of the stream, whoever had it. What the server
// forgets by that, the highest sequence delivered, is noted first.
func (c *Consumer) rebase(ctx context.Context, d durable, s *natsSource) error {
	t := c.order.current.Load()
	if t == nil || !t.stands() {
		return nil
	}
	last, again := t.lanes.shut(), t.lanes.fruitless()
	s.abandon()
	if again {
		// The first deliveries went to the request that was abandoned before. So will
		// these, for as long as the server serves it.
		sleep.For(ctx, time.Until(s.forgotten()))
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	c.count.requests.Add(2)
	found, err := c.js.Consumer(ctx, d.stream, d.name)
	if err != nil {
		return fmt.Errorf("consumer: look up position of durable %q: %w", d.name, err)
	}
	at := found.CachedInfo().Delivered
	if err := c.order.store.Reached(ctx, t.fence, at.Stream); err != nil {
		if errors.Is(err, envelope.ErrFenced) {
			t.end(fmt.Errorf("%w: %w", errLeaseLost, err))
		}
		return fmt.Errorf("consumer: note position of durable %q: %w", d.name, err)
	}
	begun, err := c.js.ResetConsumer(ctx, d.stream, d.name)
	if err != nil {
		return fmt.Errorf("consumer: reset durable %q to its ack floor (needs a server of 2.14 or newer and the right to publish to $JS.API.CONSUMER.RESET.%s.%s): %w", d.name, d.stream, d.name, err)
	}
	t.lanes.reset(s.subject(), max(begun.ResetSeq, 1)-1, at.Stream, at.Consumer < last)
	return nil
}

// shorten has requests for an ordered consumer expire before the lease does, so
// that one which an instance left behind gets no messages any more when another
// takes over.
func (c *Consumer) shorten(p *pull, s *natsSource) {
	s.expiry = min(pullExpiry, c.order.LeaseTTL/2)
	s.beat = min(pullBeat, s.expiry/3)
	p.hasty = min(p.hasty, s.expiry/2)
	if !p.replay {
		p.rebase = func(ctx context.Context) error { return c.rebase(ctx, p.durable, s) }
	}
}
