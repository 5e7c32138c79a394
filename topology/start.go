package topology

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Start is where a durable begins to read when it is created. It is declared,
// never defaulted: whether a new consumer sees a week of history or nothing of
// it is a decision, and a wrong one repeats or omits effects (requirement T9).
// The zero value is invalid. Once the durable exists, its position is the
// server's, and Start is only compared.
//
// A Start is a plain value; == compares it, but times compare by Equal.
type Start struct {
	policy   startPolicy
	time     time.Time
	sequence uint64
}

type startPolicy string

const (
	startFirst    startPolicy = "first"
	startNew      startPolicy = "new"
	startTime     startPolicy = "time"
	startSequence startPolicy = "sequence"
)

// StartFirst begins with the oldest message that the stream still holds.
func StartFirst() Start { return Start{policy: startFirst} }

// StartNew begins with the first message stored after the durable is created.
func StartNew() Start { return Start{policy: startNew} }

// StartAtTime begins with the first message stored at t or later (requirement
// M5).
func StartAtTime(t time.Time) Start {
	// Without the monotonic reading and in UTC, as it comes back from the server
	// and from a contract file.
	return Start{policy: startTime, time: t.Round(0).UTC()}
}

// StartAtSequence begins with the message of that sequence in the stream.
// Sequences are reused after a stream was rolled back or created anew: take it
// from the stream as it is now.
func StartAtSequence(n uint64) Start { return Start{policy: startSequence, sequence: n} }

// IsZero reports whether s was not declared.
func (s Start) IsZero() bool { return s.policy == "" }

// String returns first, new, "time <RFC 3339>" or "sequence <n>", and
// "undeclared" for the zero value.
func (s Start) String() string {
	switch s.policy {
	case startTime:
		return "time " + s.time.Format(time.RFC3339Nano)
	case startSequence:
		return fmt.Sprintf("sequence %d", s.sequence)
	case "":
		return "undeclared"
	}
	return string(s.policy)
}

// fault returns what is wrong with s, or "".
func (s Start) fault() string {
	switch {
	case s.IsZero():
		return "is not declared; use StartFirst, StartNew, StartAtTime or StartAtSequence"
	case s.policy == startTime && s.time.IsZero():
		return "is a time that is not set; use StartFirst for the whole history"
	case s.policy == startSequence && s.sequence == 0:
		return "is sequence 0; sequences begin with 1, use StartFirst for the whole history"
	}
	return ""
}

func (s Start) apply(cfg *jetstream.ConsumerConfig) {
	switch s.policy {
	case startFirst:
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	case startNew:
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	case startTime:
		cfg.DeliverPolicy = jetstream.DeliverByStartTimePolicy
		cfg.OptStartTime = &s.time
	case startSequence:
		cfg.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
		cfg.OptStartSeq = s.sequence
	}
}
