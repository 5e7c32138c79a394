package envelope

import "errors"

// Sentinels, for errors.Is.
var (
	// ErrMalformed is wrapped by every error of [Decode] and of [Type.Decode]:
	// these bytes will never decode, however often they are delivered.
	ErrMalformed = errors.New("envelope: malformed")
	// ErrTooLarge is wrapped when an envelope exceeds [MaxSize], by encoding as
	// well as by decoding.
	ErrTooLarge = errors.New("envelope: too large")
	// ErrAlreadyProcessed is what a handler returns when it finds that the
	// effect is already there; the message is then acknowledged as handled
	// (requirement I3). Wrapping it is fine, joining it with another error is
	// not: the whole is a failure then, since a part of it is.
	ErrAlreadyProcessed = errors.New("envelope: already processed")
)

// FieldError says which field breaks which rule. Several of them come joined
// (errors.Join): errors.AsType[*FieldError] finds the first, and the text of the
// whole error lists all.
type FieldError struct {
	// Field is the name on the wire, such as "tenant_id", or what a caller has
	// to set, such as "Origin.Actor".
	Field string
	// Reason says what is wrong and what to do. It never holds the value.
	Reason string
}

// Error returns "envelope: <field>: <reason>".
func (e *FieldError) Error() string { return "envelope: " + e.Field + ": " + e.Reason }

// MismatchError says that an envelope and what it travelled with contradict
// each other: a header, or the subject it was published on. The envelope is
// authoritative, so such a message is a dead letter of class [ClassSecurity]
// and never retried (requirement X4).
type MismatchError struct {
	// Field is the header name, or the envelope field that the subject
	// contradicts.
	Field string
	// Reason says what disagrees. It never holds the values.
	Reason string
}

// Error returns "envelope: <field>: <reason>".
func (e *MismatchError) Error() string { return "envelope: " + e.Field + ": " + e.Reason }
