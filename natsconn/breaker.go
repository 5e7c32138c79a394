package natsconn

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// DefaultCoolDown is how long an open breaker refuses calls by default.
const DefaultCoolDown = 5 * time.Second

// Breaker is the configuration of the circuit breaker of Do (requirement M1).
// It spares callers a wait for the timeout, and a struggling broker their
// requests, when the last calls got no answer. The zero value is off: the
// outbox and consumers pace themselves, so it is meant for calls on behalf of a
// waiting client.
type Breaker struct {
	// Failures is the number of calls in a row without an answer that opens
	// the breaker. An answer of any kind, also an error, counts from zero
	// again; calls that their caller cancelled do not count. Default: 0, off.
	Failures int

	// CoolDown is how long calls are refused before one is let through to
	// try. Up to half of it is added at random, so that the replicas of a
	// service do not all try in the same moment. Default: 5 s.
	CoolDown time.Duration
}

// ErrBreakerOpen matches the error of a call that was not made because the
// broker did not answer the last ones.
var ErrBreakerOpen = errors.New("natsconn: circuit breaker is open")

// BreakerOpenError is the error of a call that was not made. errors.Is finds
// ErrBreakerOpen; Err is not part of its chain, for this call did not fail so.
type BreakerOpenError struct {
	RetryAfter time.Duration // until a call may be let through
	Failures   int           // calls without an answer, in a row
	Err        error         // what the last of them returned
}

// Error names the number of failures, the wait and the last cause.
func (e *BreakerOpenError) Error() string {
	return fmt.Sprintf("natsconn: circuit breaker is open after %d calls without an answer, try again in %s; last cause: %v",
		e.Failures, e.RetryAfter.Round(time.Millisecond), e.Err)
}

// Is reports whether target is ErrBreakerOpen.
func (e *BreakerOpenError) Is(target error) bool { return target == ErrBreakerOpen }

// breakerState goes closed → open (Failures in a row) → half-open (after the
// cool-down, one call at a time) → closed (it was answered) or open again.
type breakerState int

const (
	breakerClosed breakerState = iota
	breakerOpen
	breakerHalfOpen
)

type breaker struct {
	cfg Breaker
	log *slog.Logger

	mu       sync.Mutex
	state    breakerState
	turn     int       // counts changes of state; an older turn's result is void
	failures int       // in a row
	until    time.Time // when open: the end of the cool-down
	cause    error     // of the last failure
	probing  bool      // when half-open: one call is out
}

func newBreaker(cfg Breaker, log *slog.Logger) *breaker {
	return &breaker{cfg: cfg, log: log}
}

// enter asks for leave to make a call. The caller must call leave when it is
// over, or a half-open breaker stays shut.
func (b *breaker) enter() (leave func(outcome, error), err error) {
	if b.cfg.Failures <= 0 {
		return func(outcome, error) {}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := time.Until(b.until)
	switch {
	case b.state == breakerOpen && wait > 0:
		return nil, b.refusalLocked(wait)
	case b.state == breakerOpen:
		b.changeLocked(breakerHalfOpen)
	case b.state == breakerHalfOpen && b.probing:
		// The probe ends within the request timeout; a cool-down is of that
		// order and the best that can be said.
		return nil, b.refusalLocked(b.cfg.CoolDown)
	}
	b.probing = b.state == breakerHalfOpen
	turn := b.turn
	return func(result outcome, err error) { b.leave(turn, result, err) }, nil
}

func (b *breaker) refusalLocked(wait time.Duration) *BreakerOpenError {
	return &BreakerOpenError{RetryAfter: wait, Failures: b.failures, Err: b.cause}
}

// leave counts the result of a call. A call that began before the last change
// of state says nothing about what came after it.
func (b *breaker) leave(turn int, result outcome, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if turn != b.turn {
		return
	}
	b.probing = false
	switch result {
	case answered:
		b.failures, b.cause = 0, nil
		b.changeLocked(breakerClosed)
	case unanswered:
		b.failures++
		b.cause = err
		if b.state == breakerHalfOpen || b.failures >= b.cfg.Failures {
			b.until = time.Now().Add(b.jittered())
			b.changeLocked(breakerOpen)
		}
	}
}

func (b *breaker) jittered() time.Duration {
	return b.cfg.CoolDown + rand.N(b.cfg.CoolDown/2+1)
}

func (b *breaker) changeLocked(to breakerState) {
	if b.state == to {
		return
	}
	b.state = to
	b.turn++
	switch to {
	case breakerOpen:
		b.log.Warn("nats: circuit breaker open", "failures", b.failures, "error", text(b.cause))
	case breakerClosed:
		b.log.Info("nats: circuit breaker closed")
	}
}
