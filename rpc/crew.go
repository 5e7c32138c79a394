package rpc

import "sync"

// crew counts the handlers that run, and lets in no more than its limit. It is not
// a queue: who finds no place is told so at once.
type crew struct {
	mu      sync.Mutex
	running int
	limit   int
	closed  bool
	idle    chan struct{} // closed when nobody runs and nobody may begin
}

func newCrew(limit int) *crew { return &crew{limit: limit, idle: make(chan struct{})} }

// admission is the answer to whoever wants to begin.
type admission int

const (
	admitted admission = iota
	busy
	stopping
)

// enter takes a place; who was admitted leaves it with leave.
func (c *crew) enter() admission {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return stopping
	case c.running >= c.limit:
		return busy
	}
	c.running++
	return admitted
}

func (c *crew) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.checkIdle()
}

// close admits nobody any more. It returns a channel that is closed when the last
// one has left.
func (c *crew) close() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.checkIdle()
	return c.idle
}

// checkIdle is called with the lock held.
func (c *crew) checkIdle() {
	if !c.closed || c.running > 0 {
		return
	}
	select {
	case <-c.idle:
	default:
		close(c.idle)
	}
}

// count returns how many handlers run.
func (c *crew) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}
