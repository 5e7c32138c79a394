package consumer

import (
	"slices"
	"sync"
)

// crew runs functions concurrently on goroutines that it keeps. A new goroutine
// begins with a small stack, and decoding and handling a message makes it grow
// several times, which cost a fifth of a consumer's time when each message had
// new ones.
//
// One goroutine at a time is on its way to the tasks that wait: it takes one and
// sends the next on its way before it begins. So all tasks that block run beside
// each other, while those that do not are run by about as many goroutines as there
// are processors, one after the other. The one that rested last comes first. A
// goroutine that ran 200 messages ago has nothing left in the processor's caches,
// which made a message a fifth dearer.
//
// It bounds nothing: the gate does. A function may end its goroutine with
// runtime.Goexit; the crew is then smaller by one.
type crew struct {
	keep int // goroutines that may rest

	mu      sync.Mutex
	tasks   []func()        // that nobody has begun, in their order
	begun   int             // of tasks; these are nil
	resting []chan struct{} // a call for each goroutine that rests, who rested last at the end
	coming  bool            // one is on its way to the tasks
	over    bool            // nobody rests any more
}

func newCrew(keep int) *crew { return &crew{keep: keep} }

// run has task begun in its turn, which waits for no other task to end. It does
// not block.
func (c *crew) run(task func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tasks) == cap(c.tasks) && c.begun > 0 {
		n := copy(c.tasks, c.tasks[c.begun:])
		clear(c.tasks[n:])
		c.tasks, c.begun = c.tasks[:n], 0
	}
	c.tasks = append(c.tasks, task)
	c.send()
}

// runNext is run for a task that somebody waits for: it goes before those that wait.
func (c *crew) runNext(task func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun > 0 {
		c.begun--
		c.tasks[c.begun] = task
	} else {
		c.tasks = slices.Insert(c.tasks, 0, task)
	}
	c.send()
}

// send has one more goroutine come, unless one does. The caller holds the lock.
func (c *crew) send() {
	if c.coming {
		return
	}
	c.coming = true
	last := len(c.resting) - 1
	if last < 0 {
		go c.serve()
		return
	}
	c.resting[last] <- struct{}{} // has room
	c.resting = c.resting[:last]
}

// serve is a goroutine of the crew, on its way.
func (c *crew) serve() {
	call := make(chan struct{}, 1)
	for arrived := true; ; {
		task, rest := c.next(arrived, call)
		arrived = false
		switch {
		case task != nil:
			task()
		case rest:
			<-call
			arrived = true
		default:
			return
		}
	}
}

// next takes the first task. If there is none the caller is to rest until the call,
// unless enough do. arrived says that the caller was on its way.
func (c *crew) next(arrived bool, call chan struct{}) (task func(), rest bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if arrived {
		c.coming = false
	}
	if c.begun == len(c.tasks) {
		if rest = len(c.resting) < c.keep && !c.over; rest {
			c.resting = append(c.resting, call)
		}
		return nil, rest
	}
	task = c.tasks[c.begun]
	c.tasks[c.begun] = nil
	if c.begun++; c.begun == len(c.tasks) {
		c.tasks, c.begun = c.tasks[:0], 0
	} else {
		c.send()
	}
	return task, false
}

// dismiss ends the goroutines that rest. What runs is finished, and tasks are
// still run.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for _, call := range c.resting {
		call <- struct{}{}
	}
	c.resting = nil
}
