package consumer

import (
	"runtime"
	"sync"
	"time"
)

// acks sends acknowledgements together. One alone costs a write here and a read
// at the server, which is a sixth of what a small message costs; and the client
// library writes as soon as its flusher gets to run.
//
// Only acks of handlers that are quick wait: beside one that takes milliseconds a
// write is nothing, and what the server counts as pending it does not replace.
// What waits is bounded in number and time, and nothing waits while no other
// message is in flight. A process that dies meanwhile has the messages delivered
// again, as it has those whose ack it had written and the server had not read.
type acks struct {
	most  int           // that wait
	delay time.Duration // for which one waits
	send  func(m *message)

	mu      sync.Mutex
	waiting []*message
	spare   []*message  // room for waiting
	timer   *time.Timer // that flushes

	sending sync.Mutex // held by who sends
}

// ackDelay is how long an ack may wait for others, and how long a quick handler
// takes at most.
const ackDelay = 500 * time.Microsecond

// newAcks lets a quarter of the messages that may be in flight wait: the server
// counts them as pending, and delivers so many fewer.
func newAcks(inFlight int, send func(*message)) *acks {
	a := &acks{most: max(1, min(inFlight/4, 64)), delay: ackDelay, send: send}
	a.timer = time.AfterFunc(time.Hour, a.flush)
	a.timer.Stop()
	return a
}

// add has m acknowledged soon, and lets the client library write what is due; begun is when its handler began, zero if none did.
func (a *acks) add(m *message, begun time.Time) {
	slow := !begun.IsZero() && time.Since(begun) >= a.delay
	a.mu.Lock()
	due := slow || len(a.waiting)+1 >= a.most
	if len(a.waiting) == 0 && !due {
		a.timer.Reset(a.delay)
	}
	a.waiting = append(a.waiting, m)
	a.mu.Unlock()
	if due {
		a.flush()
		// The client library writes on a goroutine of its own, which would wait until
		// this one has no more messages. Meanwhile the server has none to deliver.
		runtime.Gosched()
	}
}

// flush sends what waits, and returns when all that was added before is sent.
func (a *acks) flush() {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	batch := a.waiting
	a.waiting, a.spare = a.spare, nil
	a.mu.Unlock()
	for _, m := range batch {
		a.send(m)
	}
	clear(batch)
	a.mu.Lock()
	a.spare = batch[:0]
	a.mu.Unlock()
}
