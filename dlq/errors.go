package dlq

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Sentinels, for errors.Is.
var (
	// ErrNoStream: a stream of the queue is missing. Declare it in the topology
	// and run topology.Ensure, or ask who owns it.
	ErrNoStream = errors.New("stream is missing")
	// ErrFull: a stream refused because it has no room. Nothing is dropped: the
	// consumer pauses until resolved letters are removed or the limit is raised.
	// Replays are refused already when 80 % of their stream is used, so that there
	// is room for the marks that end them.
	ErrFull = errors.New("stream is full")
	// ErrNotFound: no stored letter has this id.
	ErrNotFound = errors.New("no such letter")
	// ErrDuplicate: the server took a replay for a repetition and stored
	// nothing, so nobody would have received it. Try again
	// when the stream's duplicate window, two minutes, has passed.
	ErrDuplicate = errors.New("the server swallowed it as a duplicate")
	// ErrForgotten: the message failed, or was replayed, so long ago that the inbox
	// may have forgotten an effect of that replay or of another copy of the message
	// (Config.Horizon). Request.Again replays it all the same.
	ErrForgotten = errors.New("it failed or was replayed longer ago than the inbox remembers")
	// ErrNoDurable: the durable that would receive the replay is missing, and one
	// that is made later begins behind it. Have the service run topology.Ensure, or
	// discard the letters of a durable that is gone for good.
	ErrNoDurable = errors.New("replay durable is missing")
	// ErrNoData: the letter was stored without its bytes, because they did not
	// fit together with the letter's headers; it cannot be replayed from here.
	ErrNoData = errors.New("letter holds no data")
)

// ConflictError says that somebody else acts on the letter, or did while we
// tried: exactly one replay is under way, and it is not this one. Look at the
// letter again before trying again.
type ConflictError struct {
	LetterID string
	// State is what the other made of the letter: claimed, replayed, or whatever
	// came after it. It is unknown when the last mark cannot be read.
	State State
	// By and At say who, and when the server stored the mark. By is empty where
	// nobody has acted on the letter, which is in no state to be restored.
	By string
	At time.Time
}

// Error returns the state, who and when.
func (e *ConflictError) Error() string {
	if e.State == StateUnknown {
		return fmt.Sprintf("dlq: letter %s: its last mark cannot be read by this version: use the one that wrote it", e.LetterID)
	}
	if e.By == "" {
		return fmt.Sprintf("dlq: letter %s: is %s", e.LetterID, e.State)
	}
	return fmt.Sprintf("dlq: letter %s: %s by %s at %s", e.LetterID, e.State, e.By, e.At.UTC().Format(time.RFC3339))
}

// ResolvedError says that the letter is closed: handled, or discarded by an
// operator. A closed letter is not replayed; a discarded one can be restored.
type ResolvedError struct {
	LetterID string
	// State is resolved, discarded or removed.
	State State
	// By and At say who, and when the server stored the mark.
	By string
	At time.Time
}

// Error returns the state, who and when.
func (e *ResolvedError) Error() string {
	return fmt.Sprintf("dlq: letter %s: already %s by %s at %s", e.LetterID, e.State, e.By, e.At.UTC().Format(time.RFC3339))
}

// SecurityError says that the letter is of class security: the message
// contradicts itself, such as a header that names another tenant than the
// envelope. It is never replayed, since a replay is made of what the letter kept
// and could pass the check that the original failed. An edit changes nothing
// about that: the contradiction is about who the message is from and which one it
// is, not in its data, and the id in a forged envelope may be that of an honest
// message, which the inbox would then take for handled. Have the producer publish
// an honest message instead, and discard the letter.
type SecurityError struct {
	LetterID string
	// Reason is the contradiction, as the letter has it.
	Reason string
}

// Error returns why the letter is not replayed, and what to do instead.
func (e *SecurityError) Error() string {
	return fmt.Sprintf("dlq: letter %s: is of class security and is not replayed: have its producer publish an honest message: %s", e.LetterID, e.Reason)
}

// AddressError says that a letter cannot be replayed because its durable, or its
// original's subject, is nothing that could be addressed. It can be discarded.
type AddressError struct {
	LetterID string
	// Err says what is wrong.
	Err error
}

// Error returns the letter and the cause.
func (e *AddressError) Error() string {
	return fmt.Sprintf("dlq: letter %s: cannot be replayed, only discarded: %v", e.LetterID, e.Err)
}

// Unwrap returns the cause.
func (e *AddressError) Unwrap() error { return e.Err }

// EditError says that the data of a letter cannot be edited as it was asked for.
// The letter is as it was.
type EditError struct {
	LetterID string
	// Err says why. It is what the function of [Transform] returned, or holds none
	// of the data.
	Err error
}

// Error returns the letter and the cause.
func (e *EditError) Error() string {
	return fmt.Sprintf("dlq: letter %s: edit: %v", e.LetterID, e.Err)
}

// Unwrap returns the cause.
func (e *EditError) Unwrap() error { return e.Err }

// TooManyError says that a Filter means more letters than Request.Max. Nothing
// was done. Narrow the filter, or allow more.
type TooManyError struct {
	// Matched is how many letters the filter lets through, Max how many were
	// allowed.
	Matched, Max int
}

// Error returns both numbers.
func (e *TooManyError) Error() string {
	return fmt.Sprintf("dlq: %d letters match and at most %d are allowed: nothing was done: narrow the filter, or allow more", e.Matched, e.Max)
}

// MalformedError says that one stored message of the dead-letter stream is no
// letter as this package writes it. [Queue.List] goes on behind it.
type MalformedError struct {
	// Sequence is where the message is stored in the dead-letter stream.
	Sequence uint64
	// Err says what is wrong.
	Err error
}

// Error returns the sequence and the cause.
func (e *MalformedError) Error() string {
	return fmt.Sprintf("dlq: stored message %d is no letter: %v", e.Sequence, e.Err)
}

// Unwrap returns the cause.
func (e *MalformedError) Unwrap() error { return e.Err }

// FieldError says which argument breaks which rule. Several come joined
// (errors.Join).
type FieldError struct {
	// Field names what the caller gave, such as "Request.Reason".
	Field string
	// Reason says what is wrong and what to do. It never holds the value.
	Reason string
}

// Error returns "dlq: <field>: <reason>".
func (e *FieldError) Error() string { return "dlq: " + e.Field + ": " + e.Reason }

// Error codes of the server that nats.go has no name for, or whose name says
// less than the number.
const (
	codeTooLarge       jetstream.ErrorCode = 10054
	codeNoResources    jetstream.ErrorCode = 10023
	codeNoStorage      jetstream.ErrorCode = 10047
	codeStoreFailed    jetstream.ErrorCode = 10077
	codeWrongLast      jetstream.ErrorCode = 10071
	codeWrongLastInUse jetstream.ErrorCode = 10164
	codeUnavailable    jetstream.ErrorCode = 10008
	codeNotLeader      jetstream.ErrorCode = 10009
	codeInProcess      jetstream.ErrorCode = 10158
	codeTooMany        jetstream.ErrorCode = 10167
)

// outcome is what is known about a publish after its error.
type outcome uint8

const (
	// unknown: it may be stored or not. Only asking, or repeating in a way that
	// cannot store twice, tells. It is the zero value, since an error that the
	// server did not send never means "not stored".
	unknown outcome = iota
	// refused: the last mark is not the expected one, or a mark of the same
	// letter is being stored at this moment.
	refused
	// full: not stored, no room.
	full
	// tooLarge: not stored, and never will be in this form.
	tooLarge
	// rejected: not stored, for a reason that repeating does not heal.
	rejected
)

// outcomeOf classifies the error of a publish. Codes that are not listed are
// answers of the server too, and mean rejected.
func outcomeOf(err error) outcome {
	if errors.Is(err, nats.ErrMaxPayload) {
		return tooLarge
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return unknown
	}
	switch api.ErrorCode {
	case codeTooLarge:
		return tooLarge
	case codeNoResources, codeNoStorage, codeStoreFailed:
		return full
	case codeWrongLast, codeWrongLastInUse:
		return refused
	case codeUnavailable, codeNotLeader, codeInProcess, codeTooMany:
		return unknown
	}
	return rejected
}

// publishError gives the error of a publish its text and its identity.
func publishError(doing, stream string, err error) error {
	if outcomeOf(err) == full {
		return fmt.Errorf("dlq: %s in %s: %w: %w", doing, stream, ErrFull, err)
	}
	return fmt.Errorf("dlq: %s in %s: %w", doing, stream, err)
}
