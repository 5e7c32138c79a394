package consumer

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errCrowded is why a message that has to run alone is given back: others do not
// wait for it any longer.
var errCrowded = errors.New("consumer: a start of it never ended, so it has to run alone, and handlers that were begun before do not return")

// company decides which handlers run at the same time: many beside each other, or
// one alone, since it may be what killed the process before.
//
// While one waits to run alone no other begins, or it would wait for ever. So that
// a handler that does not return cannot stop all others by that, the wait is
// bounded, and after one in vain nobody waits again before those are gone that it
// was for. The next wait may take twice as long: where each handler takes longer
// than the first one, the message must still have its turn.
type company struct {
	patience time.Duration // of the first wait
	most     time.Duration // of any

	mu      sync.Mutex
	beside  int           // run beside each other
	slow    int           // of these, those for which one waited in vain
	alone   bool          // one runs alone
	waiting bool          // one waits to run alone, and is the next
	vain    int           // waits in vain since one ran alone
	round   int           // all waits in vain
	changed chan struct{} // closed when who waits has to look again; nil while nobody does
}

// pass is the leave of one handler to run, until it is ended.
type pass struct {
	of    *company
	alone bool
	round int // of the company, when it was given
	over  bool
	limit deadline[*pass] // see overdue
}

// join waits until a handler may run beside others, or until ctx ends or closing
// is closed.
func (c *company) join(ctx context.Context, closing <-chan struct{}) (*pass, error) {
	for {
		c.mu.Lock()
		if !c.alone && !c.waiting {
			c.beside++
			p := &pass{of: c, round: c.round}
			c.mu.Unlock()
			return p, nil
		}
		changed := c.watch()
		c.mu.Unlock()
		select {
		case <-changed:
		case <-closing:
			return nil, errShutdown
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// clear waits until a handler may run alone, as join does, and not for long: then
// it fails with errCrowded.
func (c *company) clear(ctx context.Context, closing <-chan struct{}) (*pass, error) {
	timer := time.NewTimer(c.limit())
	defer timer.Stop()
	for next := false; ; {
		c.mu.Lock()
		switch {
		case c.slow > 0:
			c.mu.Unlock()
			return nil, errCrowded
		case c.alone, c.waiting && !next:
		case c.beside == 0:
			c.alone, c.waiting, c.vain = true, false, 0
			c.mu.Unlock()
			return &pass{of: c, alone: true}, nil
		default:
			c.waiting, next = true, true
		}
		changed := c.watch()
		c.mu.Unlock()
		var err error
		select {
		case <-changed:
			continue
		case <-timer.C:
			err = errCrowded
		case <-closing:
			err = errShutdown
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if next {
			c.giveWay(err == errCrowded)
		}
		return nil, err
	}
}

// limit is how long the next one waits to run alone.
func (c *company) limit() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.patience
	for range c.vain {
		if limit *= 2; limit >= c.most {
			return c.most
		}
	}
	return limit
}

// giveWay lets others begin again.
func (c *company) giveWay(vain bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting = false; vain {
		c.slow = c.beside // nobody has joined meanwhile
		c.vain++
		c.round++
	}
	c.wake()
}

// end may be called again: a handler that outlasts its time is no company any
// more, whenever it returns. A nil pass was never given.
func (p *pass) end() {
	if p == nil {
		return
	}
	c := p.of
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case p.over:
		return
	case p.alone:
		c.alone = false
	default:
		if c.beside--; p.round < c.round {
			c.slow--
		}
	}
	if p.over = true; c.beside == 0 {
		c.wake()
	}
}

func (c *company) watch() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

func (c *company) wake() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}
