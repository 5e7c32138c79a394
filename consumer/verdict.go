package consumer

import (
	"errors"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/processed"
)

// action is what happens to a message after its handler returned.
type action uint8

const (
	// ack: done, never again.
	ack action = iota + 1
	// retry: again after a delay.
	retry
	// bury: a dead letter.
	bury
	// release: again at once or after a delay, here or elsewhere, and nobody is to
	// blame.
	release
	// reject: a replay instruction that names no letter is terminated. No event
	// is lost by it: letters are kept in their own stream.
	reject
	// skip: acknowledged untouched, since another shard handles it.
	skip
	// moved: an ordered message that is parked now, and acknowledged.
	moved
)

// verdict is the judgement of one delivery.
type verdict struct {
	action    action
	duplicate bool           // of ack: the effect was there already
	elsewhere bool           // of ack: the message is parked, and not this delivery's to handle
	delay     time.Duration  // of retry, release
	class     envelope.Class // of bury
	err       error          // nil only for ack
}

// policy turns a handler's error into a verdict. It is the one place where
// classification, retry and dead-lettering are ordered, so that no composition
// of wrappers can decide whether a retry happens at all.
type policy struct {
	maxAttempts int
	maxDelay    time.Duration
	retry       backoff.Policy
}

// judge decides on a delivery whose handler returned err at its attempt-th
// start. interrupted says that the handler's ctx was cancelled by a shutdown:
// whatever it returned then, but success, is no statement about the message, and
// the next delivery will make it again if it was one.
func (p policy) judge(err error, attempt int, interrupted bool) verdict {
	switch {
	case err == nil:
		return verdict{action: ack}
	case processed.Already(err):
		return verdict{action: ack, duplicate: true, err: err}
	case errors.Is(err, envelope.ErrParked):
		return verdict{action: ack, duplicate: true, elsewhere: true, err: err}
	case interrupted, errors.Is(err, envelope.ErrFenced):
		return verdict{action: release, err: err}
	case envelope.IsPermanent(err):
		return verdict{action: bury, class: permanentClass(err), err: err}
	case attempt >= p.maxAttempts:
		return verdict{action: bury, class: envelope.ClassExhausted, err: err}
	}
	return verdict{action: retry, delay: p.delay(err, attempt), err: err}
}

// permanentClass tells data that does not fit its type, which a corrected
// producer or schema heals, from a handler's own refusal.
func permanentClass(err error) envelope.Class {
	if errors.Is(err, envelope.ErrMalformed) {
		return envelope.ClassDecode
	}
	return envelope.ClassPoison
}

// asksForDelay reports whether a handler said when to come again.
func asksForDelay(err error) bool {
	_, asks := errors.AsType[*envelope.RetryAfterError](err)
	return asks
}

// delay is the handler's own wish within its cap, or the backoff. Zero, "at
// once", is granted when it was asked for.
func (p policy) delay(err error, attempt int) time.Duration {
	if wish, ok := errors.AsType[*envelope.RetryAfterError](err); ok {
		return min(max(wish.After, 0), p.maxDelay)
	}
	return p.retry.Delay(attempt)
}
