package rpc

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Sentinels, for errors.Is.
var (
	// ErrNoDeadline: the ctx of a call has no deadline. How long an answer is worth
	// waiting for is the caller's to say.
	ErrNoDeadline = errors.New("rpc: no deadline")
	// ErrDeadlineTooFar: the deadline of a call is further away than
	// ClientConfig.MaxTimeout. Work that takes longer is a command with a task.
	ErrDeadlineTooFar = errors.New("rpc: deadline too far")
	// ErrTooLarge: a request is larger than ClientConfig.MaxRequest, or than the
	// broker allows.
	ErrTooLarge = errors.New("rpc: too large")
	// ErrNotRunning is what Server.Ready returns before Run and after it.
	ErrNotRunning = errors.New("rpc: server is not running")
	// ErrAlreadyRun is returned by a second Server.Run.
	ErrAlreadyRun = errors.New("rpc: Run was called before; make a new Server")
)

// Code says what kind of failure an [Error] is: a closed set. One that is not in
// it is read as [CodeInternal].
type Code string

// The codes.
const (
	// CodeInvalidArgument: the request itself is wrong, whatever the state.
	CodeInvalidArgument Code = "invalid_argument"
	// CodeNotFound: what the request is about does not exist.
	CodeNotFound Code = "not_found"
	// CodeAlreadyExists: what the request would make exists.
	CodeAlreadyExists Code = "already_exists"
	// CodePermissionDenied: the actor may not do this.
	CodePermissionDenied Code = "permission_denied"
	// CodeFailedPrecondition: the state does not allow it, until somebody changes
	// the state.
	CodeFailedPrecondition Code = "failed_precondition"
	// CodeConflict: somebody else was first. Read again, then decide again.
	CodeConflict Code = "conflict"
	// CodeResourceExhausted: a quota or a size limit.
	CodeResourceExhausted Code = "resource_exhausted"
	// CodeUnavailable: nothing was done, because nobody was there to do it: no
	// server, one that is stopping, or one whose handlers are all busy.
	CodeUnavailable Code = "unavailable"
	// CodeDeadlineExceeded: no answer in time. What was done is not known.
	CodeDeadlineExceeded Code = "deadline_exceeded"
	// CodeCanceled: the call was broken off. The caller gave up, its connection was
	// closed (one that reconnects waits on), or the server had to stop before the
	// handler was done. What was done is not known.
	CodeCanceled Code = "canceled"
	// CodeUnimplemented: the server that was asked does not have the operation in
	// this version. While replicas are being replaced another may.
	CodeUnimplemented Code = "unimplemented"
	// CodeInternal: a fault of the server or of what answered in its place. What
	// was done is not known; the server's log says more.
	CodeInternal Code = "internal"
)

// statuses is constant: the codes, each with its number in the header that stock
// tools read. Several codes share a number; the code in the body decides.
var statuses = map[Code]string{
	CodeInvalidArgument: "400", CodePermissionDenied: "403", CodeNotFound: "404",
	CodeAlreadyExists: "409", CodeConflict: "409", CodeFailedPrecondition: "412",
	CodeResourceExhausted: "429", CodeCanceled: "499", CodeInternal: "500",
	CodeUnimplemented: "501", CodeUnavailable: "503", CodeDeadlineExceeded: "504",
}

// known returns c, or internal when c is none of the codes.
func (c Code) known() Code {
	if statuses[c] == "" {
		return CodeInternal
	}
	return c
}

// Error is a failed call, and what a handler returns to say why it failed. Every
// error of [Operation.Call] is an *Error:
//
//	if e, ok := errors.AsType[*rpc.Error](err); ok && e.Code == rpc.CodeNotFound {
//
// It is read-only once it was returned.
type Error struct {
	// Code is the kind of failure.
	Code Code
	// Message is for people: one line without payload or secrets, of which 1 KiB
	// travels.
	Message string
	// RetryAfter asks to wait so long before the next try. Zero: no hint. It
	// travels in whole milliseconds.
	RetryAfter time.Duration
	// Local says that no server said this: the caller's own process found it, as
	// when nobody answered. False: the server said so.
	Local bool
	// Operation is what was called, such as "maskin.get_server". A handler leaves it
	// empty: a server passes on no error that came from a call of its own.
	Operation string

	cause error // of a local error
}

// Errorf makes the error of a handler. The text goes to the caller as it is: it
// must not hold what the caller may not see.
//
//	return reply, rpc.Errorf(rpc.CodeNotFound, "server %s does not exist", request.ID)
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Error names operation, code, whether a server said so, and the message.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("rpc: ")
	if e.Operation != "" {
		b.WriteString("call " + e.Operation + ": ")
	}
	b.WriteString(string(e.Code))
	if e.Local {
		b.WriteString(" (local)")
	}
	b.WriteString(": " + e.Message)
	return b.String()
}

// Unwrap returns the cause of a local error, such as context.DeadlineExceeded,
// nats.ErrNoResponders or one of this package's sentinels.
func (e *Error) Unwrap() error { return e.cause }

// Retryable reports whether the same request may be sent again whatever it does:
// it was surely not handled, and may be the next time. That is CodeUnavailable, and
// CodeResourceExhausted with a RetryAfter. Wait before the next try, the longer the
// more often it failed: neither an outage nor an overload passes by asking.
//
// All other codes are an answer, or leave open what was done (deadline_exceeded,
// canceled, internal): whether to repeat those depends on whether the operation may
// be applied twice, which only the caller knows.
func (e *Error) Retryable() bool {
	return e.Code == CodeUnavailable || e.Code == CodeResourceExhausted && e.RetryAfter > 0
}

// CodeOf returns the code of the first [*Error] in err's chain, "" for nil, and
// CodeInternal for any other error.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code.known()
	}
	return CodeInternal
}

// DrainError says that handlers ignored the end of their ctx, so that Run returned
// without them.
type DrainError struct {
	// Unfinished is the number of handlers that were still running.
	Unfinished int
}

// Error names the number and the cause.
func (e *DrainError) Error() string {
	return fmt.Sprintf("rpc: drain: %d handlers still run after their ctx was cancelled; make them watch ctx", e.Unfinished)
}

// maxMessage bounds a message on the wire and in a log line, in bytes.
const maxMessage = 1 << 10

// oneLine makes foreign text fit for a log line and a header: bounded, valid UTF-8,
// no control characters.
func oneLine(text string) string {
	if len(text) > maxMessage {
		text = text[:maxMessage]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, ""))
}
