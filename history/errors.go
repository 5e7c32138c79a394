package history

import (
	"errors"
	"fmt"
	"time"
)

// Sentinels, for errors.Is.
var (
	// ErrNoStream: the server has no such stream.
	ErrNoStream = errors.New("no such stream")
	// ErrNoDurable: the stream has no such durable.
	ErrNoDurable = errors.New("no such durable")
	// ErrNothing: the durable has handled nothing that would come again.
	ErrNothing = errors.New("nothing would come again")
)

// LimitError says that a bound of the Query ended a read before its end. What was
// read is right, and there may be more.
type LimitError struct {
	// Limit names the field of Query: Max, MaxRead or Timeout.
	Limit string
	// Stream is what was read, Next the sequence to go on with (Query.From); 0 if
	// it got nowhere.
	Stream string
	Next   uint64
}

// Error returns the bound and where to go on.
func (e *LimitError) Error() string {
	return fmt.Sprintf("history: read stream %s: ended by Query.%s: go on with Query.From %d", e.Stream, e.Limit, e.Next)
}

// MessageError says that one stored message is not one that a handler would see: it
// does not decode, or contradicts its headers or its subject. The read goes on
// behind it.
type MessageError struct {
	// Stream and Sequence are where it is stored.
	Stream   string
	Sequence uint64
	// Err says what is wrong. It holds none of the data.
	Err error
}

// Error returns where the message is, and the cause.
func (e *MessageError) Error() string {
	return fmt.Sprintf("history: message %d of stream %s: %v", e.Sequence, e.Stream, e.Err)
}

// Unwrap returns the cause.
func (e *MessageError) Unwrap() error { return e.Err }

// HorizonError says that a reset would repeat messages that are older than what an
// inbox remembers: their effects may be applied twice. ResetRequest.BeyondHorizon
// allows it.
type HorizonError struct {
	// Durable is who would get them.
	Durable string
	// StoredAt is when the first of them was stored, Horizon what an inbox
	// remembers.
	StoredAt time.Time
	Horizon  time.Duration
}

// Error returns how far back the reset would reach.
func (e *HorizonError) Error() string {
	return fmt.Sprintf("history: reset durable %s: its first message is of %s, and an inbox remembers %s: effects older than that are applied again",
		e.Durable, e.StoredAt.UTC().Format(time.RFC3339), e.Horizon)
}

// StartError says that a durable cannot go back as far as that, because it was
// declared to begin later. The declaration is the contract of what the service ever
// sees, and the server holds to it. To read more, declare a durable with another
// name and start.
type StartError struct {
	// Durable is the durable, Declared where it begins: "new", "sequence <n>" or
	// "time <RFC 3339>".
	Durable  string
	Declared string
	// From is the first message that it would have got.
	From uint64
}

// Error returns what was declared, and what to do.
func (e *StartError) Error() string {
	return fmt.Sprintf("history: reset durable %s to message %d: it is declared to start at %s and cannot go back before that: declare another durable for what is older",
		e.Durable, e.From, e.Declared)
}

// SkipError says that a durable has not handled everything before the message at
// which it would begin, so that a reset would leave something out.
type SkipError struct {
	// Durable is the durable, From the first message that it would have got.
	Durable string
	From    uint64
	// Floor is the sequence up to which everything is handled.
	Floor uint64
}

// Error returns where the reset may begin.
func (e *SkipError) Error() string {
	return fmt.Sprintf("history: reset durable %s to message %d: it has handled everything up to message %d only, so something would be left out: begin there or before",
		e.Durable, e.From, e.Floor)
}

// FieldError says which argument breaks which rule. Several come joined
// (errors.Join).
type FieldError struct {
	// Field names what the caller gave, such as "Query.Filter".
	Field string
	// Reason says what is wrong and what to do.
	Reason string
}

// Error returns "history: <field>: <reason>".
func (e *FieldError) Error() string { return "history: " + e.Field + ": " + e.Reason }
