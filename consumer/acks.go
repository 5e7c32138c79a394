package consumer

import (
	"sync"
	"time"
)

// acks sends acknowledgements together. One alone costs a write here and a read
// at the server, which is a sixth of what a small message costs; and the client
// library writes as soon as its flusher gets to run.
//
// Only acks that follow each other quickly wait: where handlers take longer than a
// write, an ack that waits is a message that the server does not deliver. What
// waits is bounded in number and time, and nothing waits while no other message is
// in flight. A process that dies meanwhile has the messages delivered
// again, as it has those whose ack it had written and the server had not read.
type acks struct {
	most  int           // that wait
	delay time.Duration // for which one waits
	gap   time.Duration // after the one before, from which on one does not wait
	send  func(m *message)

	mu      sync.Mutex
	waiting []*message
	last    time.Time   // that one was added
	timer   *time.Timer // that flushes

	sending sync.Mutex // held by who sends
}

const (
	// ackDelay is how long an ack may wait for others.
	ackDelay = 500 * time.Microsecond
	// ackGap is several times what an ack of its own costs.
	ackGap = 50 * time.Microsecond
)

// newAcks lets an eighth of the messages that may be in flight wait: the server
// counts them as pending, and delivers so many fewer.
func newAcks(inFlight int, send func(*message)) *acks {
	a := &acks{most: max(1, min(inFlight/8, 64)), delay: ackDelay, gap: ackGap, send: send}
	a.timer = time.AfterFunc(time.Hour, a.flush)
	a.timer.Stop()
	return a
}

// add has m acknowledged soon.
func (a *acks) add(m *message) {
	a.mu.Lock()
	now := time.Now()
	due := now.Sub(a.last) >= a.gap || len(a.waiting)+1 >= a.most
	if len(a.waiting) == 0 && !due {
		a.timer.Reset(a.delay)
	}
	a.waiting, a.last = append(a.waiting, m), now
	a.mu.Unlock()
	if due {
		a.flush()
	}
}

// flush sends what waits, and returns when all that was added before is sent.
func (a *acks) flush() {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	batch := a.waiting
	a.waiting = nil
	a.mu.Unlock()
	for _, m := range batch {
		a.send(m)
	}
}
