package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Times that are not worth a Config field.
const (
	// cancelGrace is what handlers get to return after their ctx was cancelled.
	cancelGrace = 5 * time.Second
	// closeTimeout bounds giving up a subscription and flushing the last acks.
	closeTimeout = 2 * time.Second
)

// Run consumes until ctx ends and returns nil after a clean stop. It looks both
// durables up first: one that is missing is a *DurableMissingError, one that is
// not as declared a *topology.DriftError, and Run returns it. A broker that does
// not answer is waited for; Ready says so. Later troubles, a deleted durable
// among them, are waited out too.
//
// When ctx ends, Run stops fetching, gives back what no handler has begun, waits
// up to Config.DrainTimeout for handlers to finish and settles their messages,
// and only then cancels the ctx of those that still run. What such a handler
// returns is no verdict: its message is given back at once. Handlers have 5 s to
// return; if some do not, Run returns a *DrainError. Run may be called once.
func (c *Consumer) Run(ctx context.Context) error {
	if !c.ran.CompareAndSwap(false, true) {
		return ErrAlreadyRun
	}
	c.setState(errStarting)
	defer c.setState(ErrNotRunning)
	defer c.retire()
	if err := c.findDurables(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	// Handlers and dead letters outlive ctx by the drain.
	work, interrupt := context.WithCancelCause(context.WithoutCancel(ctx))
	defer interrupt(errShutdown)
	if err := c.openSources(work); err != nil {
		return err
	}
	return c.runPulls(ctx, work, interrupt)
}

// retire ends what waits for work. What still runs keeps its heartbeat.
func (c *Consumer) retire() {
	c.crew.dismiss()
	c.beats.rest()
	c.overdue.limits.rest()
}

// errStarting is Ready's answer until both durables were found.
var errStarting = errors.New("consumer: starting: looking up the durables")

// findDurables looks both durables up, and returns the faults of both.
func (c *Consumer) findDurables(ctx context.Context) error {
	var faults []error
	for _, p := range c.pulls {
		faults = append(faults, p.find(ctx))
	}
	return errors.Join(faults...)
}

// openSources subscribes for both pulls, or for none.
func (c *Consumer) openSources(work context.Context) error {
	for i, p := range c.pulls {
		err := c.openSource(work, p)
		if err == nil {
			continue
		}
		c.closeSources(c.pulls[:i])
		return fmt.Errorf("consumer: open durable %q: %w", p.name, err)
	}
	return nil
}

func (c *Consumer) openSource(work context.Context, p *pull) error {
	receive := func(raw *nats.Msg, stray bool) { c.receive(work, p.durable, raw, stray) }
	if c.order != nil {
		receive = func(raw *nats.Msg, stray bool) { c.receiveOrdered(p.durable, raw, stray) }
	}
	p.deliver = func(raw *nats.Msg) { receive(raw, false) }
	stray := func(raw *nats.Msg) { receive(raw, true) }
	source, err := openSource(c.js, p.durable, stray, func() { c.count.requests.Add(1) })
	if err != nil {
		return err
	}
	p.source = source
	if c.order != nil {
		c.shorten(p, source)
	}
	return nil
}

func (c *Consumer) closeSources(pulls []*pull) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for _, p := range pulls {
		p.source.close(ctx)
	}
}

// runPulls runs both pull loops, and that of the parked messages, until ctx ends
// or the connection is closed, and drains.
func (c *Consumer) runPulls(ctx, work context.Context, interrupt context.CancelCauseFunc) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var loops sync.WaitGroup
	loops.Go(func() { c.watchConnection(ctx, stop) })
	loops.Go(func() { c.lookout.run(ctx) })
	defer c.measured.observe(c)()
	for _, p := range c.pulls {
		loops.Go(func() { p.run(ctx) })
	}
	parked := make(chan struct{})
	go func() {
		defer close(parked)
		if c.lot != nil {
			c.lot.run(ctx, work)
		}
	}()
	if c.order != nil {
		loops.Go(func() { c.compete(ctx, work) })
	}
	c.setState(nil)
	c.log.Info("consumer: running", "durable", c.cfg.Consumer.Durable, "stream", c.cfg.Consumer.Stream.Name, "concurrency", c.cfg.Concurrency)
	<-ctx.Done()

	c.gate.close() // first: what arrives from now on goes back untried
	c.setState(errDraining)
	begun := time.Now()
	loops.Wait()
	c.closeSources(c.pulls[:])
	err := c.drain(interrupt)
	c.awaitLot(parked, c.cfg.DrainTimeout-time.Since(begun))
	if c.order != nil {
		c.resign()
	}
	if cause := context.Cause(ctx); errors.Is(cause, ErrConnectionClosed) {
		err = errors.Join(cause, err)
	}
	c.log.Info("consumer: stopped", "durable", c.cfg.Consumer.Durable, "error", err)
	return err
}

// awaitLot waits for what is left of the drain, and a moment, until parked messages
// that were claimed are given back: the store may not answer.
func (c *Consumer) awaitLot(over <-chan struct{}, left time.Duration) {
	timer := time.NewTimer(max(left, closeTimeout))
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
		c.log.Warn("consumer: the store does not answer; parked messages that were just claimed are due again after AckWait", "durable", c.cfg.Consumer.Durable)
	}
}

// errDraining is Ready's answer between the end of ctx and the return of Run.
var errDraining = errors.New("consumer: draining")

// drain waits for the workers: softly, then with their ctx cancelled.
func (c *Consumer) drain(interrupt context.CancelCauseFunc) error {
	if !c.awaitIdle(c.cfg.DrainTimeout) {
		c.log.Warn("consumer: handlers outlast DrainTimeout; cancelling them", "durable", c.cfg.Consumer.Durable, "handlers", c.gate.inFlight())
		interrupt(errShutdown)
		if !c.awaitIdle(c.grace) {
			c.acks.flush()
			return &DrainError{Unfinished: c.gate.inFlight()}
		}
	}
	// Acks are fire and forget: the connection may be closed right after Run.
	c.acks.flush()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := c.js.Conn().FlushWithContext(ctx); err != nil {
		c.log.Warn("consumer: the last acks may not have reached the server; their messages are delivered again", "durable", c.cfg.Consumer.Durable, "error", err)
	}
	return nil
}

// awaitIdle waits until no message is in flight.
func (c *Consumer) awaitIdle(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.gate.idle:
		return true
	case <-timer.C:
		return false
	}
}

// watchConnection tells the pulls when the connection goes and comes, which a
// request under way notices late or never.
func (c *Consumer) watchConnection(ctx context.Context, stop context.CancelCauseFunc) {
	nc := c.js.Conn()
	changes := nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer nc.RemoveStatusListener(changes)
	if nc.IsClosed() { // before the listener was there
		stop(ErrConnectionClosed)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case status := <-changes:
			c.connectionChanged(status, stop)
		}
	}
}

func (c *Consumer) connectionChanged(status nats.Status, stop context.CancelCauseFunc) {
	if status == nats.CLOSED {
		stop(ErrConnectionClosed)
		return
	}
	for _, p := range c.pulls {
		if status == nats.CONNECTED {
			p.reconnected()
		} else {
			p.disconnected()
		}
	}
}
