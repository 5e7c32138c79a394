package envelope

import "time"

// Class says why a message became a dead letter.
type Class string

// The classes of dead letters.
const (
	// ClassPoison: the handler said [Permanent].
	ClassPoison Class = "poison"
	// ClassExhausted: every allowed attempt failed.
	ClassExhausted Class = "exhausted"
	// ClassDecode: the bytes are no envelope, or its data does not fit the type.
	ClassDecode Class = "decode"
	// ClassSecurity: envelope and headers or subject contradict each other.
	ClassSecurity Class = "security"
	// ClassCrash: the process died too often while it handled the message.
	ClassCrash Class = "crash"
)

// Failure is everything that is known about a message that could not be
// handled: what a dead letter is made of (requirement Q1). It is filled once by
// the consumer and read-only afterwards.
type Failure struct {
	// Durable is the consumer that gave up.
	Durable string
	// Stream and Sequence are where the original is stored.
	Stream   string
	Sequence uint64
	// StoredAt is when the stream stored the original.
	StoredAt time.Time
	// Subject is the subject the original was published on. It is text, because
	// a foreign message may break the naming rules and must still be diverted.
	Subject string
	// Header holds the original's headers as they were, own and foreign.
	Header Header
	// Data holds the original's bytes.
	Data []byte
	// Envelope is the decoded original, nil when it did not decode.
	Envelope *Envelope
	// Class says why.
	Class Class
	// Err is the last error.
	Err error
	// Attempts counts the handler's starts.
	Attempts int
	// FirstAt and LastAt are the times of the first and the last attempt.
	FirstAt, LastAt time.Time
	// LetterID is set when the failed delivery was itself the replay of a dead
	// letter: the new letter keeps that id.
	LetterID string
}
