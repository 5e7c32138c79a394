package dlq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// DeadLetter stores f as a letter on dv.<service>.dlq.<original subject> and
// returns its id once the server has acknowledged it. Only then may the original
// be terminated; on an error it may not, and the caller pauses and tries again
// (requirement Q1; [ErrFull] says that somebody has to make room).
//
// Calling it again with the same failure, as after a crash between storing and
// terminating, stores nothing new: the id and the message id <letter id>/d<n>
// are the same, n being the number of replays so far. The failure of a replay
// has the next n, and so is a new copy of the same letter. Beyond the stream's
// duplicate window a repetition is a second copy of the same round, which is
// listed once.
//
// Beyond that window another message that bears the envelope id of an earlier
// letter of the same durable and stream cannot be told from its repetition: it
// is stored as a newer copy of that letter, which then shows the newer bytes.
// Both are kept, and Show counts them among the copies.
//
// The letter keeps the original's bytes, its subject and its headers except
// those of the server (Nats-*). It is safe for concurrent use.
func (q *Queue) DeadLetter(ctx context.Context, f *envelope.Failure) (letterID string, err error) {
	if f == nil {
		return "", &FieldError{"DeadLetter: failure", "is nil"}
	}
	o := originalOf(f)
	for _, id := range o.ids(f) {
		l := letter{id: id, failure: f, original: o}
		to, err := q.address(l)
		if err != nil {
			return "", err
		}
		ours, err := q.store(ctx, to, &l)
		if err != nil {
			return "", err
		}
		if ours {
			q.logStored(ctx, l)
			return id, nil
		}
	}
	return "", fmt.Errorf("dlq: store letter of %s: its ids are taken by other messages", q.service)
}

// unaddressable begins the subject that stands in for one that a letter cannot
// embed.
const unaddressable = "unaddressable."

// address returns where l is published (requirement S5). An original subject
// that cannot be embedded, for example because it is too long, must not stop the
// consumer for good: its letter goes to dv.<service>.dlq.unaddressable.<letter
// id>, and its header says what the subject was.
func (q *Queue) address(l letter) (subject.Subject, error) {
	to, err := subject.DLQ(q.service, l.original.subject)
	if err != nil {
		to, err = subject.DLQ(q.service, unaddressable+l.id)
	}
	if err != nil {
		return to, fmt.Errorf("dlq: address letter of %s: %w", q.service, err)
	}
	return to, nil
}

// store publishes l in the largest form that fits. It returns false when the
// server has another message under the letter's message id.
func (q *Queue) store(ctx context.Context, to subject.Subject, l *letter) (ours bool, err error) {
	if l.round, err = q.failedRound(ctx, l); err != nil {
		return false, err
	}
	for as := whole; ; as++ {
		m := &nats.Msg{Subject: to.String(), Header: nats.Header(l.header(as)), Data: l.failure.Data}
		if as == hollow {
			m.Data = nil
		}
		ack, err := q.publish(ctx, m, q.lettersName, jetstream.WithMsgID(l.id+"/d"+strconv.Itoa(l.round)))
		switch {
		case err != nil && outcomeOf(err) == tooLarge && as < hollow:
			continue
		case err != nil:
			return false, publishError("store letter "+l.id, q.lettersName, err)
		case ack.Duplicate:
			return q.isStored(ctx, ack.Sequence, l.id, m)
		}
		return true, nil
	}
}

// isStored looks at what the server took our message for a repetition of. The
// answer "duplicate" alone is no proof that the letter is there: the server
// compares the message id and nothing else, and remembers it for messages that
// were removed meanwhile.
func (q *Queue) isStored(ctx context.Context, sequence uint64, id string, m *nats.Msg) (bool, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	raw, err := q.letters.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, fmt.Errorf("dlq: store letter %s: %w, but the letter was removed meanwhile: try again after the stream's duplicate window", id, ErrDuplicate)
	}
	if err != nil {
		return false, fmt.Errorf("dlq: look at stored letter %s: %w", id, err)
	}
	return raw.Header.Get(envelope.HeaderLetterID) == id && bytes.Equal(raw.Data, m.Data), nil
}

// failedRound returns how many replays came before the failure. The marks count
// them; one that is under way or outstanding counts only for who was replayed
// under it, so that a late repetition of an earlier failure does not open a
// letter whose replay has not ended, nor hide what failed after a letter was
// restored. A replay says itself which one it is, since by the time it fails
// another may have been claimed.
func (q *Queue) failedRound(ctx context.Context, l *letter) (int, error) {
	_, last, err := q.markOf(ctx, l.id)
	if err != nil {
		return 0, err
	}
	replayed := isLetterID(l.failure.LetterID)
	switch {
	case last == nil && replayed:
		return max(l.original.replay, 1), nil // the marks were lost
	case last == nil:
		return 0, nil
	case replayed && l.original.replay > 0:
		return min(l.original.replay, max(last.Round, 1)), nil
	case !replayed && (last.State == StateClaimed || last.State == StateReplayed || last.State == StateOpen):
		return max(last.Round-1, 0), nil
	}
	return last.Round, nil
}

// logStored writes the one line that says that a message died.
func (q *Queue) logStored(ctx context.Context, l letter) {
	h := l.header(bare)
	q.config.Logger.WarnContext(ctx, "message became a dead letter",
		slog.String("letter", l.id), slog.Int("round", l.round),
		slog.String("durable", l.original.durable), slog.String("class", string(l.failure.Class)),
		slog.Int("attempts", l.failure.Attempts),
		slog.String("fingerprint", h.Get(HeaderFingerprint)),
		slog.String("type", h.Get(envelope.HeaderType)),
		slog.String("original_id", l.original.id),
		slog.String("correlation_id", h.Get(envelope.HeaderCorrelationID)))
}

// Resolve marks the letter resolved. The consumer calls it after it has handled
// a replay, and for a message that it buried although another copy had its effect;
// note says what there is to know, in at most 1 KiB. It is idempotent
// and safe for concurrent use: whoever comes second finds the mark and is
// content.
func (q *Queue) Resolve(ctx context.Context, letterID, note string) error {
	on, err := subject.DLQMark(q.service, letterID)
	if err != nil {
		return fmt.Errorf("dlq: resolve: %w", err)
	}
	for try := 1; ; try++ {
		last, err := q.lastMark(ctx, on)
		if err != nil {
			return err
		}
		if last != nil && last.State == StateResolved {
			return nil
		}
		err = q.resolve(ctx, on, last, note)
		overtaken, _ := errors.AsType[*overtakenError](err)
		if overtaken == nil || try == tries {
			return err
		}
	}
}

// resolve writes the mark behind last. A letter without any mark must have been
// replayed once, so its round is 1; and so that it is not opened again by the
// very copy that was replayed, of which only the mark of the claim knows.
func (q *Queue) resolve(ctx context.Context, on subject.Subject, last *Mark, note string) error {
	round, expected, about := 1, uint64(0), stored{}
	if last != nil {
		round, expected, about = max(last.Round, 1), last.Sequence, last.letter()
	}
	m, err := newMark(StateResolved, round, "service:"+q.service.String(), "", about)
	if err != nil {
		return err
	}
	m.Note = oneLine(note, maxReason)
	if last != nil {
		m.Batch = last.Batch // the summary of a batch counts it
	}
	_, err = q.write(ctx, on, m, expected)
	return err
}
