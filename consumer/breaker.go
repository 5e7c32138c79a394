package consumer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"codeberg.org/dataverket/messaging/internal/backoff"
)

// breaker tells a mass failure from a bad message. When many different messages
// fail one after the other and none succeeds, it is the service or what it
// depends on that is broken: then one message at a time is fetched, at growing
// intervals, until one succeeds. So an outage does not move the backlog to the
// dead letters: at most one attempt per interval is spent.
type breaker struct {
	after int // failures of different messages in a row; 0 is never
	gate  *gate
	cut   func() // ends the open request, which asked for many
	log   *slog.Logger

	mu      sync.Mutex
	failing map[string]bool // messages that failed since the last success
	probes  int             // failed, since it opened
	probing bool            // a probe may be fetched, or is under way
	opened  time.Time       // zero: closed
	last    error
	timer   *time.Timer
	tokens  chan struct{} // one per probe; nil while closed, closed by closing
}

// probeDelays paces the probes of an open breaker.
func probeDelays() backoff.Policy {
	return backoff.Policy{Initial: time.Second, Max: 30 * time.Second}
}

// succeeded closes the breaker.
func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.failing)
	if b.opened.IsZero() {
		return
	}
	b.log.Info("consumer: a message was handled again; the breaker closes", "open_for", time.Since(b.opened))
	b.opened, b.probes, b.last = time.Time{}, 0, nil
	close(b.tokens)
	b.tokens = nil
	b.timer.Stop()
	b.gate.unlimit()
}

// failed counts a failure of a message, by any name that tells it from others. Of
// those that fail while it is open only a probe says that it is not over: what was
// fetched before must not drive the intervals up.
func (b *breaker) failed(message string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.after == 0 {
		return
	}
	b.last = err
	if !b.opened.IsZero() {
		if !b.probing {
			return
		}
		b.probing = false
		b.probes++
		b.gate.limit(0)
		b.timer.Reset(probeDelays().Delay(b.probes))
		return
	}
	if b.failing[message] = true; len(b.failing) < b.after {
		return
	}
	b.log.Error("consumer: many messages fail and none succeeds; one at a time is tried until one does", "failed", len(b.failing),
		"error", clip(err.Error(), maxErrorText))
	b.opened, b.probing, b.tokens = time.Now(), false, make(chan struct{}, 1)
	b.gate.limit(0)
	b.cut()
	b.timer = time.AfterFunc(probeDelays().Delay(1), b.probe)
}

// probe lets one message be fetched, and another one later if nothing is heard of
// it: its handler may hang, or it ended without a verdict.
func (b *breaker) probe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.opened.IsZero() { // else it closed while the timer fired
		b.probing = true
		b.gate.limit(1)
		b.spareLocked()
		b.timer.Reset(probeDelays().Max)
	}
}

// spared allows another probe of what is held here: the last one said nothing.
func (b *breaker) spared() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens != nil && b.probing {
		b.spareLocked()
	}
}

func (b *breaker) spareLocked() {
	select {
	case b.tokens <- struct{}{}:
	default: // one is allowed already
	}
}

// enter waits until a message that is held here may be attempted, and for a
// worker's slot: at once, or while the breaker is open as a probe. It is false
// when ctx or the gate ends first.
func (b *breaker) enter(ctx context.Context) bool {
	for {
		tokens := b.open()
		if tokens != nil {
			select {
			case <-tokens:
			case <-b.gate.closing:
				return false
			case <-ctx.Done():
				return false
			}
		}
		if !b.gate.enter(ctx) {
			if tokens != nil {
				b.spared() // the probe is another's to make
			}
			return false
		}
		if tokens != nil || b.open() == nil {
			return true
		}
		b.gate.leave() // it opened while this one waited for the slot
	}
}

// open returns where probes are allowed, nil while the breaker is closed.
func (b *breaker) open() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tokens
}

// ready returns why only probes are fetched, or nil.
func (b *breaker) ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened.IsZero() {
		return nil
	}
	return &NotReadyError{Err: fmt.Errorf("many messages fail and none succeeds, for %v; one at a time is tried: %w",
		time.Since(b.opened).Round(time.Second), b.last)}
}
