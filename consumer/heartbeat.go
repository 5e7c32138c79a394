package consumer

import (
	"sync"
	"time"
)

// heartbeat tells the server at intervals that a message is still being worked
// on, so that it is not delivered to somebody else meanwhile. It is a courtesy,
// not a lock: a stopped process or a lost connection ends it, and then the same
// message may be handled twice at once. The inbox decides.
//
// It costs a timer, and no goroutine until it fires.
type heartbeat struct {
	every time.Duration
	send  func()

	mu    sync.Mutex
	timer *time.Timer // nil once stopped
	muted func() bool // nil for never
}

// beats is how many heartbeats fit into AckWait: two may be lost or late.
const beats = 3

// startHeartbeat begins to send; the first beat is due after every.
func startHeartbeat(every time.Duration, send func()) *heartbeat {
	h := &heartbeat{every: every, send: send}
	h.mu.Lock() // tick may run before the timer is assigned
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(every, h.tick)
	return h
}

// muteWhile silences the heartbeat whenever muted returns true; nil lifts that.
func (h *heartbeat) muteWhile(muted func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.muted = muted
}

// stop ends the heartbeat for good. No beat is sent after it returns, so that
// none can follow the message's ack.
func (h *heartbeat) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

func (h *heartbeat) tick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer == nil {
		return // stopped while this call waited for the lock
	}
	if h.muted == nil || !h.muted() {
		h.send()
	}
	h.timer.Reset(h.every)
}
