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
	// Every task in the channel has a goroutine promised to it, so that it never
	// fills up.
	return &crew{tasks: make(chan func(), keep), keep: int64(keep), over: make(chan struct{})}
}

// run runs task on a goroutine that waits, or on a new one. It does not block.
func (c *crew) run(task func()) {
	if c.idle.Add(-1) >= 0 {
		c.tasks <- task
		return
	}
	c.idle.Add(1)
	go c.serve(task)
}

func (c *crew) serve(task func()) {
	for {
		task()
		if c.idle.Add(1) > c.keep {
			c.idle.Add(-1)
			return
		}
		select {
		case task = <-c.tasks:
		case <-c.over:
			if c.idle.Add(-1) >= 0 {
				return
			}
			c.idle.Add(1) // a task is promised already
			task = <-c.tasks
		}
	}
}

// dismiss ends the goroutines that wait. What runs is finished.
func (c *crew) dismiss() { close(c.over) }
