package dlq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
	"codeberg.org/dataverket/messaging/subject"
)

// Mark is one decision about a letter: a message on dv.<service>.dlqmark.<letter
// id>. The marks of a letter are its audit trail; the last one is in force. The
// JSON form without Sequence and StoredAt is the one on the wire.
type Mark struct {
	// Op names the operation, a UUID. It tells a writer that lost its answer
	// whether the mark it reads is its own.
	Op string `json:"op"`
	// State is claimed, replayed, resolved, discarded, open (restored) or removed.
	State State `json:"state"`
	// Round is the replay it is about, counted from 1; 0 where no replay is.
	Round int `json:"round"`
	// By is who decided, as <kind>:<id>; At is when, by the writer's clock.
	By string    `json:"by"`
	At time.Time `json:"at"`
	// Reason is the operator's, Note what the program has to add.
	Reason string `json:"reason,omitempty"`
	Note   string `json:"note,omitempty"`
	// Batch is shared by the marks of one call that acted on many letters, and
	// by those with which their durable resolved them; see [Report].
	Batch string `json:"batch,omitempty"`
	// OldData and NewData are the SHA-256 of the letter's data and of what was
	// replayed instead, in hex; empty where a replay was not edited. The data
	// itself is never in a mark.
	OldData string `json:"old_data_sha256,omitempty"`
	NewData string `json:"new_data_sha256,omitempty"`
	// LetterSequence and LetterStoredAt are the copy of the letter that was
	// decided about; a later copy opens the letter again.
	LetterSequence uint64    `json:"letter_sequence,omitempty"`
	LetterStoredAt time.Time `json:"letter_stored_at,omitzero"`

	// Sequence and StoredAt are where and when the server stored the mark.
	Sequence uint64    `json:"sequence,omitempty"`
	StoredAt time.Time `json:"stored_at,omitzero"`
}

// Bounds of a mark's texts, in bytes.
const (
	maxReason = 1 << 10
	maxMark   = 16 << 10
)

// letter returns the copy that was decided about.
func (m Mark) letter() stored { return stored{m.LetterSequence, m.LetterStoredAt} }

// encode returns the form on the wire.
func (m Mark) encode() ([]byte, error) {
	m.Sequence, m.StoredAt = 0, time.Time{}
	return json.Marshal(m)
}

// decodeMark reads the form on the wire. Fields it does not know are ignored,
// since a newer version may write them; a state it does not know is an error,
// because acting on it would be guessing.
func decodeMark(data []byte) (Mark, error) {
	var m Mark
	if len(data) > maxMark {
		return Mark{}, errors.New("dlq: mark is longer than 16 KiB")
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return Mark{}, fmt.Errorf("dlq: mark is no JSON as expected: %w", err)
	}
	m.Sequence, m.StoredAt = 0, time.Time{}
	var faults []error
	if _, err := uuid.Parse(m.Op); err != nil {
		faults = append(faults, &FieldError{"mark.op", "is no UUID"})
	}
	if !m.State.markable() {
		faults = append(faults, &FieldError{"mark.state", "is none that this version knows"})
	}
	if m.Round < 0 {
		faults = append(faults, &FieldError{"mark.round", "is negative"})
	}
	return m, errors.Join(faults...)
}

// readMark is decodeMark for what the stream holds. A mark that cannot be read
// is in force all the same, as one that says nothing: the letter stays visible
// and nobody acts on it.
func readMark(data []byte, sequence uint64, at time.Time) Mark {
	m, err := decodeMark(data)
	if err != nil {
		m.State, m.Note = StateUnknown, oneLine(err.Error(), maxReason)
		m.Round = max(m.Round, 0)
	}
	m.Sequence, m.StoredAt = sequence, at.UTC()
	return m
}

// markOf returns where the marks of a letter are, and the one in force.
func (q *Queue) markOf(ctx context.Context, letterID string) (subject.Subject, *Mark, error) {
	on, err := subject.DLQMark(q.service, letterID)
	if err != nil {
		return on, nil, fmt.Errorf("dlq: address mark: %w", err)
	}
	last, err := q.lastMark(ctx, on)
	return on, last, err
}

// lastMark returns the mark in force, nil for none. It is asked of the stream's
// leader: a replica that lags behind would report a letter that is claimed as
// open.
func (q *Queue) lastMark(ctx context.Context, on subject.Subject) (*Mark, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	raw, err := q.ops.GetLastMsgForSubject(ctx, on.String())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dlq: read last mark of letter %s: %w", on.LetterID(), err)
	}
	m := readMark(raw.Data, raw.Sequence, raw.Time)
	return &m, nil
}

// allMarks returns the marks of a letter, oldest first, from the leader.
func (q *Queue) allMarks(ctx context.Context, on subject.Subject) ([]Mark, error) {
	var all []Mark
	for next := uint64(1); ; {
		raw, err := q.nextMark(ctx, on, next)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("dlq: read marks of letter %s: %w", on.LetterID(), err)
		}
		all = append(all, readMark(raw.Data, raw.Sequence, raw.Time))
		next = raw.Sequence + 1
	}
}

// nextMark returns the first mark at or behind sequence.
func (q *Queue) nextMark(ctx context.Context, on subject.Subject, sequence uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	return q.ops.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject(on.String()))
}

// newMark returns a mark with an operation id of its own.
func newMark(state State, round int, by, reason string, about stored) (Mark, error) {
	op, err := uuid.NewV7()
	if err != nil {
		return Mark{}, fmt.Errorf("dlq: make operation id: %w", err)
	}
	return Mark{
		Op: op.String(), State: state, Round: round, By: by, At: time.Now().UTC(), Reason: reason,
		LetterSequence: about.sequence, LetterStoredAt: about.at.UTC(),
	}, nil
}

// overtakenError says that the last mark is not the one that was expected; last
// is the one that is, nil where all marks of the letter were removed.
type overtakenError struct{ last *Mark }

func (e *overtakenError) Error() string { return "dlq: another mark came first" }

// tries is how often one publish is repeated while its outcome is unknown.
const tries = 4

// write stores m if the last mark is still the expected one, given by its
// sequence, 0 for none. Repeating is safe: the expectation lets at most one of
// the repetitions in, and the operation id tells which mark is ours. An
// *overtakenError means that somebody else was first.
//
// The expectation is not combined with a message id, since a server checks the
// two in an order that depends on the number of replicas.
func (q *Queue) write(ctx context.Context, on subject.Subject, m Mark, expected uint64) (Mark, error) {
	data, err := m.encode()
	if err != nil {
		return Mark{}, fmt.Errorf("dlq: encode mark of letter %s: %w", on.LetterID(), err)
	}
	for try := 1; ; try++ {
		ack, err := q.publish(ctx, &nats.Msg{Subject: on.String(), Data: data}, q.opsName,
			jetstream.WithExpectLastSequencePerSubject(expected))
		if err == nil {
			m.Sequence = ack.Sequence
			return m, nil
		}
		doing := fmt.Sprintf("mark letter %s %s", on.LetterID(), m.State)
		if o := outcomeOf(err); o != refused && o != unknown {
			return Mark{}, publishError(doing, q.opsName, err)
		}
		became, last, readErr := q.compare(ctx, on, m, expected)
		switch {
		case became == ours:
			return *last, nil
		case became == others:
			return Mark{}, &overtakenError{last}
		case try == tries || readErr != nil:
			return Mark{}, errors.Join(publishError(doing, q.opsName, err), readErr)
		}
		if err := pause(ctx, try); err != nil {
			return Mark{}, publishError(doing, q.opsName, err)
		}
	}
}

// fate is what became of a mark whose writing was refused or not answered.
type fate uint8

const (
	undecided fate = iota // the last mark is still the expected one
	ours                  // it is the last mark
	others                // another one is, or none although one was expected
)

// compare asks what became of m, and for the last mark.
func (q *Queue) compare(ctx context.Context, on subject.Subject, m Mark, expected uint64) (fate, *Mark, error) {
	last, err := q.lastMark(ctx, on)
	switch {
	case err != nil, last == nil && expected == 0, last != nil && last.Sequence == expected:
		return undecided, last, err
	case last != nil && last.Op == m.Op:
		return ours, last, nil
	}
	return others, last, nil
}

// pause waits before the next try, or until ctx ends.
func pause(ctx context.Context, failure int) error {
	policy := backoff.Policy{Initial: 20 * time.Millisecond, Max: 500 * time.Millisecond}
	sleep.For(ctx, policy.Delay(failure))
	return context.Cause(ctx)
}
