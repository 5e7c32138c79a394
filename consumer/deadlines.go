package consumer

import (
	"sync"
	"time"
)

// deadlines calls a function for everything that is not cleared within a time,
// which is the same for all. So what was set first is due first, and one timer and
// a list do for all of them. A message sets two, and nearly all are cleared long
// before: a timer for each was a tenth of what a message costs.
type deadlines[T any] struct {
	after  time.Duration
	passed func(of T) // each call on a goroutine of its own

	mu    sync.Mutex
	first *deadline[T]
	last  *deadline[T]
	timer *time.Timer // nil before the first was set
	armed bool        // the timer runs; it may fire before anything is due
}

// deadline belongs to one list. Its zero value is not set. What it is part of must
// not be copied while it is.
type deadline[T any] struct {
	of         T
	at         time.Time
	set        bool
	prev, next *deadline[T]
}

// set has d pass in due time from now, unless it is cleared. It must not be set.
func (l *deadlines[T]) set(d *deadline[T], now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.at, d.set = now.Add(l.after), true
	if d.prev = l.last; d.prev != nil {
		d.prev.next = d
	} else {
		l.first = d
	}
	l.last = d
	if !l.armed {
		l.arm(l.after)
	}
}

// clear reports whether d was set, which it is no more.
func (l *deadlines[T]) clear(d *deadline[T]) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !d.set {
		return false
	}
	l.remove(d)
	return true
}

func (l *deadlines[T]) remove(d *deadline[T]) {
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		l.first = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		l.last = d.prev
	}
	d.prev, d.next, d.set = nil, nil, false
}

func (l *deadlines[T]) arm(after time.Duration) {
	l.armed = true
	if l.timer == nil {
		l.timer = time.AfterFunc(after, l.tick)
		return
	}
	l.timer.Reset(after)
}

func (l *deadlines[T]) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	for now := time.Now(); l.first != nil; {
		d := l.first
		if left := d.at.Sub(now); left > 0 {
			l.arm(left)
			return
		}
		l.remove(d)
		go l.passed(d.of)
	}
}

// rest stops the timer, if nothing is set.
func (l *deadlines[T]) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.armed && l.first == nil && l.timer.Stop() {
		l.armed = false
	}
}
