package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/instance"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// Reasons for which a term ends or begins.
var (
	errNoBroker  = errors.New("consumer: not connected to NATS for as long as a lease lasts")
	errLeaseLost = errors.New("consumer: the lease is lost")
	errTakeOver  = errors.New("consumer: taking over")
	errMissed    = errors.New("deliveries went to another client of this durable, or were lost with a connection; it is reset to its ack floor")
)

// ordered is what a consumer with an Order has besides.
type ordered struct {
	Order
	store  OrderedStore
	dead   LetterState // for HoldKey
	lease  string
	holder string
	glance time.Duration // between looks at the letters that hold keys

	current atomic.Pointer[term] // nil while standing by; changed under mu

	mu      sync.Mutex
	full    bool  // MaxAhead is reached
	trouble error // why there is no telling who is active, nil if there is
}

// defaultGlance is how soon a key goes on after an operator closed its letter.
const defaultGlance = 5 * time.Second

// term is one time for which this instance is the active one.
//
// The lease is trusted from the start of the request that got it, which is never
// later than what the database wrote. An instance that was stopped meanwhile
// finds at its next step that the trust has run out; and where it does not look,
// in the transaction of a handler, the database tells it by the fence.
type term struct {
	fence envelope.Fence
	lanes *lanes
	ctx   context.Context // ends with the term, or with the drain
	end   context.CancelCauseFunc
	until atomic.Pointer[time.Time]
	over  chan struct{} // closed when nothing renews the lease any more
}

// stands reports whether the lease may still be trusted. Once it may not, the
// term is over, also if the database would still take a renewal: what was left
// alone meanwhile is nobody's.
func (t *term) stands() bool {
	if t.ctx.Err() == nil && time.Now().After(*t.until.Load()) {
		t.end(fmt.Errorf("%w: it was not renewed in time", errLeaseLost))
	}
	return t.ctx.Err() == nil
}

func (t *term) trust(until time.Time) { t.until.Store(&until) }

func newOrdered(cfg Config, dead DeadLetterer) *ordered {
	if cfg.Order == nil {
		return nil
	}
	o := &ordered{
		Order: *cfg.Order, holder: instance.Name(), glance: defaultGlance,
		lease: cfg.Consumer.Stream.Name + "/" + cfg.Consumer.Durable,
	}
	// Both are checked by orderFaults.
	o.store, _ = cfg.Store.(OrderedStore)
	o.dead, _ = dead.(LetterState)
	return o
}

// ready returns why it is not known which instance is active, or why the active
// one fetches nothing; nil for a standby.
func (o *ordered) ready() error {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.trouble != nil {
		return &NotReadyError{Err: fmt.Errorf("the lease of %s is not to be had: %w", o.lease, o.trouble)}
	}
	if o.full {
		return &NotReadyError{Err: fmt.Errorf("%d messages came since the oldest that is not done; nothing is fetched until it is", o.MaxAhead)}
	}
	return nil
}

func (o *ordered) setTrouble(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trouble = err
}

// compete takes the lease whenever it is free, until ctx ends. A term that still
// stands then lasts through the drain.
func (c *Consumer) compete(ctx, work context.Context) {
	o := c.order
	for ctx.Err() == nil {
		if !c.js.Conn().IsConnected() {
			sleep.For(ctx, o.LeaseTTL/20) // another replica may have a broker
			continue
		}
		t, err := c.takeOver(ctx, work)
		if ctx.Err() != nil && t == nil {
			return
		}
		if o.setTrouble(err); t == nil {
			sleep.For(ctx, o.LeaseTTL/6)
			continue
		}
		c.log.Info("consumer: active", "durable", c.cfg.Consumer.Durable, "term", t.fence.Term)
		c.serveTerm(t)
		select {
		case <-t.ctx.Done():
			c.standDown(t)
		case <-ctx.Done():
		}
	}
}

// takeOver begins a term, or returns nil where another instance has one.
func (c *Consumer) takeOver(ctx, work context.Context) (*term, error) {
	o := c.order
	ctx, cancel := context.WithTimeout(ctx, o.LeaseTTL)
	defer cancel()
	asked := time.Now()
	fence, delivered, held, err := o.store.Acquire(ctx, o.lease, o.holder, o.LeaseTTL)
	if err != nil || !held {
		return nil, err
	}
	t := &term{fence: fence, over: make(chan struct{})}
	holds, err := o.store.HeldKeys(ctx, fence)
	if err != nil {
		return nil, err // the lease is ours; the next attempt takes it again
	}
	if err := o.store.ReclaimParked(ctx, c.cfg.Consumer.Durable); err != nil {
		return nil, err
	}
	parked, err := o.store.ParkedKeys(ctx, c.cfg.Consumer.Durable)
	if err != nil {
		return nil, err
	}
	t.lanes = newLanes(delivered, holds, parked, func(ahead int) { c.room(t, ahead) }, func() bool { return c.lot.full() == nil })
	t.trust(asked.Add(o.LeaseTTL))
	t.ctx, t.end = context.WithCancelCause(work)
	return t, nil
}

// serveTerm fetches under a term: the durable is reset first.
func (c *Consumer) serveTerm(t *term) {
	c.setTerm(t)
	go func() {
		defer close(t.over)
		var background sync.WaitGroup
		background.Go(func() { c.renew(t) })
		if c.order.HoldKey {
			background.Go(func() { c.watchLetters(t) })
		}
		background.Wait()
	}()
	for _, p := range c.pulls {
		p.restart(errTakeOver)
	}
	c.gate.stand(false)
}

// setTerm makes t the current term, nil for none.
func (c *Consumer) setTerm(t *term) {
	o := c.order
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full {
		o.full = false
		c.gate.resume()
	}
	o.current.Store(t)
}

// room stops fetching while too many messages came since the oldest that is not
// settled: they would all come again at a take-over.
func (c *Consumer) room(t *term, ahead int) {
	o := c.order
	o.mu.Lock()
	defer o.mu.Unlock()
	full := ahead >= o.MaxAhead
	if full == o.full || o.current.Load() != t {
		return
	}
	if o.full = full; full {
		c.gate.pause()
	} else {
		c.gate.resume()
	}
}

// standDown ends a term: nothing that it held is settled, since the next holder
// has the server deliver all of it again.
func (c *Consumer) standDown(t *term) {
	c.gate.stand(true)
	c.setTerm(nil)
	for _, p := range c.pulls {
		p.cutShort(errLeaseLost)
	}
	<-t.over
	c.log.Warn("consumer: no longer active", "durable", c.cfg.Consumer.Durable, "term", t.fence.Term, "reason", context.Cause(t.ctx))
	if errors.Is(context.Cause(t.ctx), errNoBroker) {
		c.yieldLease(t)
	}
}

// renew keeps the lease until the term ends, and ends it when it cannot. One slow
// answer does not cost the lease: it is asked again while the lease is trusted. An
// instance that has had no broker for as long as a lease lasts gives it up.
func (c *Consumer) renew(t *term) {
	o := c.order
	connected := time.Now()
	for wait := o.LeaseTTL / 3; ; {
		if sleep.For(t.ctx, wait); t.ctx.Err() != nil {
			return
		}
		asked := time.Now()
		if c.js.Conn().IsConnected() {
			connected = asked
		}
		if asked.Sub(connected) > o.LeaseTTL {
			t.end(errNoBroker)
			return
		}
		ctx, cancel := context.WithDeadline(t.ctx, *t.until.Load())
		held, err := o.store.Renew(ctx, t.fence, o.LeaseTTL)
		cancel()
		switch {
		case err == nil && held:
			t.trust(asked.Add(o.LeaseTTL))
			wait = o.LeaseTTL / 3
		case err == nil:
			t.end(fmt.Errorf("%w: another instance took over", errLeaseLost))
		case !t.stands():
			t.end(fmt.Errorf("%w: it could not be renewed in time: %w", errLeaseLost, err))
		default:
			wait = o.LeaseTTL / 20
		}
	}
}

// resign ends the term after a drain, so that a standby takes over at once.
func (c *Consumer) resign() {
	t := c.order.current.Load()
	if t == nil {
		return
	}
	c.setTerm(nil)
	t.end(errShutdown)
	<-t.over
	c.yieldLease(t)
}

// yieldLease lets a standby take over at once. It is best effort.
func (c *Consumer) yieldLease(t *term) {
	ctx, cancel := context.WithTimeout(context.Background(), c.order.LeaseTTL/2)
	defer cancel()
	if err := c.order.store.Release(ctx, t.fence); err != nil {
		c.log.Warn("consumer: lease not released, it runs out by itself", "durable", c.cfg.Consumer.Durable, "error", err)
	}
}

// watchLetters lets keys go on whose letter an operator has closed.
func (c *Consumer) watchLetters(t *term) {
	for sleep.For(t.ctx, c.order.glance); t.ctx.Err() == nil; sleep.For(t.ctx, c.order.glance) {
		for _, letter := range t.lanes.letters() {
			err := c.lookAtLetter(t, letter)
			if err != nil {
				c.log.Warn("consumer: no telling whether the letter that holds a key is closed", "durable", c.cfg.Consumer.Durable, "letter", letter, "error", err)
			}
			if t.ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
				break // nobody answers, whatever the letter
			}
		}
	}
}

func (c *Consumer) lookAtLetter(t *term, letter string) error {
	ctx, cancel := context.WithTimeout(t.ctx, letterTimeout)
	defer cancel()
	var closed bool
	err := protect(func() (err error) {
		closed, err = c.order.dead.Closed(ctx, letter)
		return err
	})
	if err != nil || !closed {
		return err
	}
	return c.unhold(ctx, t, letter)
}

// unhold lets the key go on that waits for a letter.
func (c *Consumer) unhold(ctx context.Context, t *term, letter string) error {
	if err := c.order.store.Unhold(ctx, t.fence, letter); err != nil {
		return err
	}
	t.lanes.unhold(letter)
	c.lot.expect(0) // those of the key that are parked
	return nil
}
