package consumer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// handlerContext is the ctx of one handler: context.WithDeadline of its parent, that
// is made when somebody asks for what only that has. A handler that calls nothing
// which waits does not ask, and to make it cost more than to route the message: a
// timer, and an entry in the parent, under a lock that all handlers share.
type handlerContext struct {
	context.Context // the parent
	deadline        time.Time

	made atomic.Pointer[madeContext] // nil until somebody asked
	mu   sync.Mutex                  // held by who makes it, and by end
	over bool                        // the handler returned
}

// madeContext is what context.WithDeadline returned.
type madeContext struct {
	context.Context
	cancel context.CancelFunc
}

// newHandlerContext returns a ctx that ends with parent, at the deadline, or with
// the call of end, which there must be.
func newHandlerContext(parent context.Context, deadline time.Time) *handlerContext {
	return &handlerContext{Context: parent, deadline: deadline}
}

// end releases what it holds. Whoever kept the ctx finds it cancelled.
func (c *handlerContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if m := c.made.Load(); m != nil {
		m.cancel()
	}
}

// standard returns the ctx of the standard library, which decides why and when it
// ended, once and for all.
func (c *handlerContext) standard() context.Context {
	if m := c.made.Load(); m != nil {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.made.Load(); m != nil {
		return m
	}
	ctx, cancel := context.WithDeadline(c.Context, c.deadline)
	if c.over {
		cancel()
	}
	c.made.Store(&madeContext{ctx, cancel})
	return ctx
}

// Deadline implements context.Context.
func (c *handlerContext) Deadline() (deadline time.Time, ok bool) {
	if earlier, ok := c.Context.Deadline(); ok && earlier.Before(c.deadline) {
		return earlier, true
	}
	return c.deadline, true
}

// Done implements context.Context.
func (c *handlerContext) Done() <-chan struct{} { return c.standard().Done() }

// Err implements context.Context.
func (c *handlerContext) Err() error {
	if c.made.Load() == nil && c.goesOn() {
		return nil
	}
	return c.standard().Err()
}

// goesOn tells that nothing ended it, without asking the standard library.
func (c *handlerContext) goesOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.over && c.Context.Err() == nil && time.Now().Before(c.deadline)
}

// Value implements context.Context. The standard library finds by it what a child
// has to be told by, so that a child costs no goroutine.
func (c *handlerContext) Value(key any) any {
	if m := c.made.Load(); m != nil {
		return m.Value(key)
	}
	return c.Context.Value(key)
}
