package consumer

import "sync/atomic"

// crew runs functions concurrently on goroutines that it keeps. A new goroutine
// begins with a small stack, and decoding and handling a message makes it grow
// several times, which cost a fifth of a consumer's time when each message had
// new ones.
//
// It bounds nothing: the gate does. A function may end its goroutine with
// runtime.Goexit; the crew is then smaller by one.
type crew struct {
	tasks chan func()
	keep  int64         // goroutines that may wait
	idle  atomic.Int64  // goroutines that wait, or are about to, and are not promised to a task
	over  chan struct{} // closed by dismiss
}

func newCrew(keep int) *crew {
	// Every task in the channel has a goroutine promised to it that comes for it.
	return &crew{tasks: make(chan func(), keep), keep: int64(keep), over: make(chan struct{})}
}

// run runs task on a goroutine that waits, or on a new one. It does not block.
func (c *crew) run(task func()) {
	if c.promise() {
		c.tasks <- task
		return
	}
	go c.serve(task)
}

func (c *crew) serve(task func()) {
	for {
		task()
		if !c.rest() {
			return
		}
		select {
		case task = <-c.tasks:
		case <-c.over:
			if c.promise() {
				return
			}
			task = <-c.tasks // it is promised to one already
		}
	}
}

// rest counts a goroutine in that waits, unless there are enough. It never counts
// one that will not wait: a task promised to that would wait behind another.
func (c *crew) rest() bool {
	for {
		n := c.idle.Load()
		if n >= c.keep {
			return false
		}
		if c.idle.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// promise counts a goroutine out that waits, if there is one.
func (c *crew) promise() bool {
	for {
		n := c.idle.Load()
		if n <= 0 {
			return false
		}
		if c.idle.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// dismiss ends the goroutines that wait. What runs is finished.
func (c *crew) dismiss() { close(c.over) }
