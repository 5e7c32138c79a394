package consumer

import (
	"context"
	"sync"
	"time"
)

// heartbeat tells the server at intervals that a message is still being worked
// on, so that it is not delivered to somebody else meanwhile. It is a courtesy,
// not a lock: a stopped process or a lost connection ends it, and then the same
// message may be handled twice at once. The inbox decides.
type heartbeat struct {
	rate *heartbeats
	send func()

	mu      sync.Mutex
	next    deadline[*heartbeat]
	stopped bool
	handler context.Context // nil for none
}

// heartbeats is the rhythm of those that have the same interval.
type heartbeats = deadlines[*heartbeat]

// beats is how many heartbeats fit into AckWait: two may be lost or late.
const beats = 3

func newHeartbeats(every time.Duration) *heartbeats {
	return &heartbeats{after: every, passed: (*heartbeat).beat}
}

// start begins to send; the first beat is due after the interval.
func (h *heartbeat) start(rate *heartbeats, send func()) {
	h.rate, h.send = rate, send
	h.next.of = h
	rate.set(&h.next, time.Now())
}

// follow silences the heartbeat when the ctx of the message's handler has ended,
// until unfollow.
func (h *heartbeat) follow(handler context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handler = handler
}

// unfollow is for when the handler has returned.
func (h *heartbeat) unfollow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handler = nil
}

// stop ends the heartbeat for good. No beat is sent after it returns, so that
// none can follow the message's ack.
func (h *heartbeat) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped {
		h.stopped = true
		h.rate.clear(&h.next)
	}
}

func (h *heartbeat) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return // while this call waited for the lock
	}
	if h.handler == nil || h.handler.Err() == nil {
		h.send()
	}
	h.rate.set(&h.next, time.Now())
}
