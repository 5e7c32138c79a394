package consumer

import (
	"context"
	"sync"
)

// gate counts worker slots. Both pulls and the poller of parked messages ask it how many they
// may request, so that what was requested always finds a free worker and the
// client's buffer never eats AckWait.
//
// A message is taken from its arrival until it is settled. At most size of them
// hold a slot; the replay pull and the parked messages may have a few more waiting
// for one (see lane.extra), which their heartbeats keep alive.
type gate struct {
	size    int
	spare   int           // beyond size, for replays
	slots   chan struct{} // one token per running worker
	closing chan struct{} // closed by close
	idle    chan struct{} // closed when closing and nothing is taken
	lanes   [3]*lane      // main, replay, parked

	mu     sync.Mutex
	taken  int
	most   int // of the main pull's messages at once, besides aside; size, unless a breaker is open
	aside  int // of what is taken, what a breaker found there and does not count
	paused int // reasons to ask for nothing but replays
	closed bool
	stands bool // by: nothing is asked for
}

// lane is one pull's account at the gate.
type lane struct {
	// extra is how many messages the lane may ask for whenever a worker is free,
	// whatever the main pull has asked for; 0 for the main pull itself. Otherwise
	// an idle main pull, which has asked for all slots, would lock the others out
	// until its request expires.
	extra int
	// patient marks the lane that pauses and limits like the main pull. Replays
	// do not: an operator's replay may be what ends the pause.
	patient bool
	// asked is the number of messages requested and not yet received.
	asked int
	// wake is signalled when the lane may ask for more.
	wake chan struct{}
}

// newGate lets size messages in, of which as many as there are workers run. Where
// messages wait for their turn, replays get past them: one may be what they wait
// for.
func newGate(size, workers int) *gate {
	g := &gate{
		size:    size,
		most:    size,
		slots:   make(chan struct{}, workers),
		closing: make(chan struct{}),
		idle:    make(chan struct{}),
		lanes:   [3]*lane{newLane(0, true), newLane(1, false), newLane(parkedBatch, true)},
	}
	if size > workers {
		g.spare = workers
	}
	return g
}

func newLane(extra int, patient bool) *lane {
	return &lane{extra: extra, patient: patient, wake: make(chan struct{}, 1)}
}

// reserve returns how many messages the lane may request now, and counts them as
// asked. Zero means: wait for lane.wake.
func (g *gate) reserve(l *lane) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.free(l)
	l.asked += n
	return n
}

func (g *gate) free(l *lane) int {
	switch {
	case g.closed, g.stands, g.taken >= g.size+g.spare, l.patient && g.paused > 0:
		return 0
	case l.extra > 0 && l.patient:
		return max(min(l.extra, g.room())-l.asked, 0)
	case l.extra > 0:
		return max(l.extra-l.asked, 0)
	}
	return max(g.room()-l.asked, 0)
}

// room is how many messages more the patient lanes may have.
func (g *gate) room() int { return min(g.most-(g.taken-g.aside), g.size-g.taken) }

// stand begins or ends a time in which nothing is asked for: another instance is
// the active one.
func (g *gate) stand(by bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stands = by
	g.wake()
}

func (g *gate) standsBy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stands
}

// limit bounds how many messages the main pull may have at once, besides those
// that are taken now and what it asked for before: one that never returns must not
// keep others from being tried.
func (g *gate) limit(most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.most, g.aside = most, g.taken
	g.wake()
}

// unlimit ends a limit.
func (g *gate) unlimit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.most, g.aside = g.size, 0
	g.wake()
}

// forgo takes back what was asked for and will not come.
func (g *gate) forgo(l *lane, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.asked -= n
	g.wake()
}

// arrive takes a message that l asked for. It is false while the gate closes:
// then the message goes back untried.
func (g *gate) arrive(l *lane) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l.asked--
	if g.closed {
		return false
	}
	g.taken++
	return true
}

// adopt takes a message that nobody asked for, if a worker is free. One comes
// when a request that was given up for lost was not.
func (g *gate) adopt(*lane) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.taken >= g.size {
		return false
	}
	g.taken++
	return true
}

func (g *gate) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// enter waits for a worker's slot; it is false when the gate closes or ctx ends
// first.
func (g *gate) enter(ctx context.Context) bool {
	select {
	case <-g.closing: // first, since select has no order
		return false
	default:
	}
	select {
	case g.slots <- struct{}{}: // at once, as nearly always
		return true
	default:
	}
	select {
	case g.slots <- struct{}{}:
		return true
	case <-g.closing:
	case <-ctx.Done():
	}
	return false
}

// leave frees the slot.
func (g *gate) leave() { <-g.slots }

// settle ends a taken message, and reports whether it was the last one.
func (g *gate) settle() (last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken--
	g.aside = min(g.aside, g.taken)
	g.wake()
	g.checkIdle()
	return g.taken == 0
}

// pause keeps the main pull from asking until as many calls of resume.
func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused++
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused--
	g.wake()
}

// close begins the drain: nothing is taken any more, and who waits for a slot
// gives up.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	close(g.closing)
	g.checkIdle()
}

func (g *gate) checkIdle() {
	if !g.closed || g.taken > 0 {
		return
	}
	select {
	case <-g.idle:
	default:
		close(g.idle)
	}
}

// wake signals all lanes. A signal that is already pending is enough: its
// reader looks at the counts afterwards.
func (g *gate) wake() {
	for _, l := range g.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (g *gate) inFlight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.taken
}
