package envelope

import (
	"errors"
	"time"
)

// ErrParked is what an inbox returns, wrapped, for a delivery of a message that
// waits in the consumer's database: it will be handled from there, and this
// delivery has nothing to do. A consumer acknowledges it.
var ErrParked = errors.New("envelope: parked")

// Parked is a message that was taken out of its stream's consumer to wait in the
// consumer's database, because its next attempt is too far away to hold one of
// the durable's MaxAckPending places until then. It is the delivery as it came,
// so that it takes the same way again when it is due.
//
// (Source, MessageID, LetterID) identifies it among the parked messages of one
// inbox: whatever else the stream brings under that identity is a repeat.
type Parked struct {
	// Source and MessageID are those of the envelope.
	Source, MessageID string
	// LetterID names the dead letter of which the message is a replay, "" for an
	// ordinary message.
	LetterID string
	// Durable is the consumer that parked it and will handle it.
	Durable string
	// Key is the ordering key: the envelope's subject, unless the consumer has an
	// order by something else.
	Key string

	// Stream, StreamCreated and Sequence are where the original is stored. The
	// time of creation tells a stream from another of the same name; within a
	// key it and the sequence give the order.
	Stream        string
	StreamCreated time.Time
	Sequence      uint64
	// StoredAt is when the stream stored what was delivered.
	StoredAt time.Time

	// Subject, Header and Data are the delivery's, byte by byte.
	Subject string
	Header  Header
	Data    []byte

	// Attempts is the number of handler starts so far.
	Attempts int
	// Reason is the error of the last attempt, cut to 512 bytes; for operators.
	Reason string
	// ReleasedBy and ReleaseReason tell which operator made the message due before
	// its time, and why; empty if nobody did.
	ReleasedBy, ReleaseReason string
	// Fence is the lease under which an ordered consumer parks it; zero where any
	// instance may.
	Fence Fence
	// Claim is set on a message that is due and was handed to a process: what it
	// does with it has an effect only while the claim is its own.
	Claim string
}
