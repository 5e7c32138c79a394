package envelope

import (
	"errors"
	"time"
)

// Permanent marks an error as one that no retry will heal: the message becomes a
// dead letter of class [ClassPoison] at once (requirement I3). Permanent(nil) is
// nil, so that a call can be returned as it is. The text is that of err, and
// errors.Is and errors.As see through the mark.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err, or an error it wraps, was marked with
// [Permanent]. The mark wins over a [RetryAfterError] in the same chain: the
// handler that knows that nothing will heal is not asked again.
func IsPermanent(err error) bool {
	_, ok := errors.AsType[*permanentError](err)
	return ok
}

// permanentError carries the mark. It is unexported so that the predicate is the
// only way to ask.
type permanentError struct{ err error }

// Error returns the text of the marked error: the mark is not for readers.
func (e *permanentError) Error() string { return e.err.Error() }

// Unwrap returns the marked error.
func (e *permanentError) Unwrap() error { return e.err }

// RetryAfterError asks for redelivery after a delay of the handler's choice
// instead of the consumer's backoff. The attempt counts like any other.
type RetryAfterError struct {
	// After is the delay from the end of the attempt. Zero or less means at
	// once. A consumer cuts it to 10 min, or to 7 days if it can park messages in
	// a database.
	After time.Duration
	// Err is the cause; nil when the handler only waits for something.
	Err error
}

// RetryAfter returns a [*RetryAfterError]. A nil err is allowed: "not yet" needs
// no cause.
func RetryAfter(d time.Duration, err error) error {
	return &RetryAfterError{After: max(d, 0), Err: err}
}

// Error returns the delay and the cause.
func (e *RetryAfterError) Error() string {
	text := "retry after " + e.After.String()
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *RetryAfterError) Unwrap() error { return e.Err }
