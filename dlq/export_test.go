package dlq

import (
	"context"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// Bounds that tests build cases around.
const (
	MaxError          = maxError
	MaxOriginalValues = maxOriginalValues
)

// Reserved are the names that only this package may say.
func Reserved() []string { return reserved[:] }

// Normalise is normalise.
func Normalise(text string) string { return normalise(text) }

// Fingerprint is fingerprint.
func Fingerprint(class envelope.Class, durable, typ, text string) string {
	return fingerprint(class, durable, typ, text)
}

// DecodeMark is decodeMark.
func DecodeMark(data []byte) (Mark, error) { return decodeMark(data) }

// Encode is encode.
func (m Mark) Encode() ([]byte, error) { return m.encode() }

// ParseLetter is parseLetter.
func ParseLetter(h envelope.Header) (Letter, error) { return parseLetter(h) }

// LetterHeader returns the headers of the letter that f becomes, with its first
// id.
func LetterHeader(f *envelope.Failure, round int) envelope.Header {
	o := originalOf(f)
	return letter{id: o.ids(f)[0], round: round, failure: f, original: o}.header(whole)
}

// ReplayHeader returns the headers of a replay of the letter with header h.
func ReplayHeader(h envelope.Header, round int) envelope.Header {
	l, _ := parseLetter(h)
	return replayHeader(l, round, "")
}

// LetterID returns the id that the parts of a failure give.
func LetterID(durable, stream, envelopeID string) string {
	return idByEnvelopeOf(durable, stream, envelopeID)
}

// PositionID returns the id by position.
func PositionID(durable, stream string, at time.Time, sequence uint64) string {
	return idByPositionOf(durable, stream, at, sequence)
}

// Hold sets how many letters a listing holds before it takes a second pass.
func (q *Queue) Hold(n int) { q.hold = n }

// Replaying is a replay whose steps a test takes one by one, as a process that
// may die between them.
type Replaying struct {
	q *Queue
	r *replaying
}

// Claim takes the first step of Replay.
func (q *Queue) Claim(ctx context.Context, letterID string, req Request) (*Replaying, error) {
	at, err := q.locate(ctx, letterID)
	if err != nil {
		return nil, err
	}
	r, err := q.newReplaying(ctx, pick{id: letterID, place: at}, order{Request: req})
	if err == nil {
		err = q.admit(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	return &Replaying{q, r}, q.mark(ctx, r)
}

// Deliver takes the second step.
func (p *Replaying) Deliver(ctx context.Context) error { return p.q.deliver(ctx, p.r) }

// Conclude takes the last step.
func (p *Replaying) Conclude(ctx context.Context) (Replay, error) {
	err := p.q.conclude(ctx, p.r)
	return p.r.result, err
}

// WriteMark stores a mark behind the last one.
func (q *Queue) WriteMark(ctx context.Context, l Letter, state State, by string) error {
	on, last, err := q.markOf(ctx, l.ID)
	if err != nil {
		return err
	}
	round, expected := 0, uint64(0)
	if last != nil {
		round, expected = last.Round, last.Sequence
	}
	m, err := newMark(state, round, by, "test", l.place().stored)
	if err != nil {
		return err
	}
	_, err = q.write(ctx, on, m, expected)
	return err
}

// Merge is merge.
func Merge(raw, before, after string) string {
	return string(merge([]byte(raw), []byte(before), []byte(after)))
}

// Changes is changes.
func Changes(old, changed string) []Change { return changes([]byte(old), []byte(changed)) }
