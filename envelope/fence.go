package envelope

import "errors"

// Fence names the lease under which an ordered consumer delivers a message. The
// handler's store compares it in the transaction of the effect, so that an
// instance that was overtaken applies nothing. The zero value is no fence: any
// instance may handle the message.
type Fence struct {
	// Lease is the lease's name: "<stream>/<durable>".
	Lease string
	// Term counts the holders of the lease, from 1. It grows with every
	// take-over and is never given twice.
	Term int64
}

// ErrFenced says that another instance has taken over the lease that a delivery
// came under. Nothing was done, and the message is to blame for nothing: its
// new holder handles it.
var ErrFenced = errors.New("another instance has taken over")

// HeldKey is an ordering key that waits for an operator: its first message is a
// dead letter, and those behind it are not handled before the operator decides.
type HeldKey struct {
	// Key is the ordering key.
	Key string
	// LetterID names the dead letter.
	LetterID string
	// Source and MessageID name the message that became it.
	Source, MessageID string
}
