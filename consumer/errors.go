package consumer

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/panics"
)

// Sentinels, for errors.Is.
var (
	// ErrNotRunning is what Ready returns before Run and after it.
	ErrNotRunning = errors.New("consumer: not running")
	// ErrAlreadyRun is what a second Run returns: a Consumer runs once.
	ErrAlreadyRun = errors.New("consumer: Run was called before; make another Consumer with New")
	// ErrConnectionClosed is what Run returns when the NATS connection was
	// closed for good under it.
	ErrConnectionClosed = errors.New("consumer: the NATS connection is closed; dial again and make another Consumer")
)

// errShutdown is the cause of a handler's ctx that was cancelled because Run
// drains.
var errShutdown = errors.New("consumer: shutting down")

// DurableMissingError says that a durable is not there. A running consumer
// never creates one: its start position would be a guess, and a guess replays
// or skips history (requirement T9).
type DurableMissingError struct {
	// Stream and Durable name what was looked for.
	Stream, Durable string
	// Err is the server's answer: the durable or its whole stream is unknown.
	Err error
}

// Error names the durable and the remedy.
func (e *DurableMissingError) Error() string {
	return fmt.Sprintf("consumer: look up durable %q on stream %q: missing; create it from its declaration with topology.Ensure (a running consumer never creates one): %v",
		e.Durable, e.Stream, e.Err)
}

// Unwrap returns the server's answer.
func (e *DurableMissingError) Unwrap() error { return e.Err }

// NotReadyError says why a running Consumer gets no messages from one of its
// durables, or asks for none.
type NotReadyError struct {
	// Stream and Durable name whose messages do not come; both pulls wait when
	// they are empty.
	Stream, Durable string
	// Err is the reason.
	Err error
}

// Error names the durable and the reason.
func (e *NotReadyError) Error() string {
	if e.Durable == "" {
		return fmt.Sprintf("consumer: not ready: %v", e.Err)
	}
	return fmt.Sprintf("consumer: not ready: durable %q on stream %q: %v", e.Durable, e.Stream, e.Err)
}

// Unwrap returns the reason.
func (e *NotReadyError) Unwrap() error { return e.Err }

// DrainError says that handlers ignored the end of their ctx, so that Run
// returned without them. Their messages are delivered again after AckWait.
type DrainError struct {
	// Unfinished is the number of handlers that were still running.
	Unfinished int
}

// Error names the number and the cause.
func (e *DrainError) Error() string {
	return fmt.Sprintf("consumer: drain: %d handlers still run after their ctx was cancelled; make them watch ctx", e.Unfinished)
}

// PanicError is the error of a handler that panicked. It is retried like any
// other error: a panic may come from the state of the world as well as from the
// message.
type PanicError struct {
	// Value is what the handler panicked with, as text.
	Value string
	// Location is the function and line that panicked.
	Location string
	// Stack is the goroutine's stack, at most 4 KiB.
	Stack []byte
}

// Error names value and location, without the stack: addresses differ from run
// to run, and dead letters are grouped by their error text.
func (e *PanicError) Error() string {
	return fmt.Sprintf("consumer: handler panicked: %s (at %s)", e.Value, e.Location)
}

// maxStack bounds PanicError.Stack.
const maxStack = 4 << 10

// newPanicError describes a recovered value. It must be called by the deferred
// function that recovered, while the panicking frames are still on the stack.
func newPanicError(value any) *PanicError {
	stack := make([]byte, maxStack)
	return &PanicError{
		Value:    clip(fmt.Sprint(value), maxErrorText),
		Location: cmp.Or(panics.Location(), "unknown"),
		Stack:    stack[:runtime.Stack(stack, false)],
	}
}

// errGoexit is the error of a handler whose goroutine ended without returning,
// as testing.T.FailNow does.
var errGoexit = errors.New("consumer: handler called runtime.Goexit")

// readable returns err, or a replacement if a method of it panics, as those of a
// typed nil pointer do: whoever logs or judges the error afterwards would end
// the process. The mark of envelope.Permanent is kept.
func readable(err error) error {
	if err == nil || survives(func() {
		_ = err.Error()
		_ = errors.Is(err, errGoexit) // calls every Is and Unwrap there is
	}) {
		return err
	}
	permanent, culprit := false, err
	survives(func() {
		if permanent = envelope.IsPermanent(err); permanent {
			culprit = errors.Unwrap(err)
		}
	})
	replacement := fmt.Errorf("consumer: handler returned an error of type %T that panics when it is read; return a plain nil for success", culprit)
	if permanent {
		return envelope.Permanent(replacement)
	}
	return replacement
}

// survives calls f and reports whether it did not panic.
func survives(f func()) (ok bool) {
	defer func() { ok = recover() == nil }()
	f()
	return true
}

// maxErrorText bounds an error's text in a log line. The text of a handler's
// error is foreign: it may quote a whole SQL statement.
const maxErrorText = 512

// clip cuts s to at most n bytes at the border of a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
