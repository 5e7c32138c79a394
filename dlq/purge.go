package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
	"codeberg.org/dataverket/messaging/subject"
)

// DefaultRetention is how long a closed letter is kept, unless Purge is told
// otherwise.
const DefaultRetention = 30 * 24 * time.Hour

// PurgeRequest says which closed letters go.
type PurgeRequest struct {
	// OlderThan is how long ago a letter was resolved or discarded, by the
	// server's clock. Default: DefaultRetention.
	OlderThan time.Duration
	// By is who, as <kind>:<id>, and Reason why, in at most 1 KiB. Nothing of a
	// letter is left, nor of its audit trail, so both are logged. Default: the
	// service itself, and none: its own housekeeping.
	By, Reason string
	// DryRun counts and removes nothing. Default: false.
	DryRun bool
}

// validate returns every fault of r at once.
func (r PurgeRequest) validate() error {
	var faults []error
	if r.OlderThan < 0 {
		faults = append(faults, &FieldError{"PurgeRequest.OlderThan", "is negative: leave it zero for the default"})
	}
	by := envelope.Actor(r.By)
	if _, err := envelope.NewActor(by.Kind(), by.ID()); r.By != "" && err != nil {
		faults = append(faults, &FieldError{"PurgeRequest.By", "must say who, as <kind>:<id> like operator:ola: " + err.Error()})
	}
	if len(r.Reason) > maxReason || !utf8.ValidString(r.Reason) {
		faults = append(faults, &FieldError{"PurgeRequest.Reason", "must be UTF-8 of at most 1024 bytes: refer to a ticket"})
	}
	return errors.Join(faults...)
}

// Purged says what was removed, or would be.
type Purged struct {
	// Letters is how many letters, Messages how many stored messages beside their
	// marks: copies and replays.
	Letters  int `json:"letters"`
	Messages int `json:"messages"`
	// Kept is how many were left alone because somebody acted on them, or they
	// failed again, while it worked.
	Kept int `json:"kept"`
}

// Purge removes letters that were closed, resolved or discarded, for
// r.OlderThan, with their marks and replays. What is not closed is never removed,
// however old it is: nothing unresolved expires (requirement Q4). A service may
// call it now and then, at once with others too; nothing calls it by itself.
//
// It is safe to end at any point. A letter is marked removed first, on condition
// that nobody acted on it, so that nobody can afterwards; then its copies go, the
// newest last, and then its marks. What a crash left undone stays closed, and the
// next Purge finishes it. A letter that fails again meanwhile keeps its new copy
// and is open.
//
// It reads all marks and the headers of all letters and replays, each once, and
// makes about four requests for each letter that goes. An error means that it
// stopped early. It is safe for concurrent use.
func (q *Queue) Purge(ctx context.Context, r PurgeRequest) (Purged, error) {
	if err := r.validate(); err != nil {
		return Purged{}, err
	}
	r.By, r.OlderThan = cmp.Or(r.By, "service:"+q.service.String()), cmp.Or(r.OlderThan, DefaultRetention)
	work, err := q.purgeable(ctx, r.OlderThan)
	if err != nil {
		return Purged{}, err
	}
	var p Purged
	for _, w := range work {
		if r.DryRun {
			p.Letters, p.Messages = p.Letters+1, p.Messages+len(w.copies)+len(w.replays)
			continue
		}
		if err = q.removeLetter(ctx, w, r, &p); err != nil {
			break
		}
	}
	if !r.DryRun && (p.Letters > 0 || err != nil) {
		q.config.Logger.LogAttrs(ctx, slog.LevelInfo, "dead letters purged", slog.Int("letters", p.Letters),
			slog.Int("messages", p.Messages), slog.Int("kept", p.Kept), slog.Duration("older_than", r.OlderThan),
			slog.String("by", r.By), slog.String("reason", r.Reason), slog.Any("error", err))
	}
	return p, err
}

// removal is what is stored of one letter that goes.
type removal struct {
	id      string
	last    Mark
	newest  place    // zero where no copy is left
	copies  []stored // oldest first
	replays []uint64
}

// purgeable finds the letters that were closed for age.
func (q *Queue) purgeable(ctx context.Context, age time.Duration) ([]*removal, error) {
	info, err := q.info(ctx, q.ops)
	if err != nil {
		return nil, err
	}
	marks, err := q.lastMarks(ctx)
	if err != nil {
		return nil, err
	}
	work := map[key]*removal{}
	for k, m := range marks {
		// One that a crash left removed is finished whatever its age.
		if m.State.Closed() && (m.State == StateRemoved || info.TimeStamp.Sub(m.StoredAt) >= age) {
			work[k] = &removal{id: k.letterID(), last: m}
		}
	}
	if len(work) == 0 {
		return nil, nil
	}
	if err := q.findCopies(ctx, work); err != nil {
		return nil, err
	}
	maps.DeleteFunc(work, func(_ key, w *removal) bool {
		return w.newest.sequence > 0 && !derive(w.newest, &w.last).Closed() // it failed again
	})
	if err := q.findReplays(ctx, work); err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(work), func(a, b *removal) int {
		return cmp.Compare(a.last.Sequence, b.last.Sequence)
	}), nil
}

// findCopies finds the copies of the letters.
func (q *Queue) findCopies(ctx context.Context, work map[key]*removal) error {
	return q.run(ctx, q.allLetters(), func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		h := envelope.Header(m.Headers())
		k, _ := keyOf(h.Get(envelope.HeaderLetterID))
		if w := work[k]; w != nil {
			at := placeOf(h, meta)
			w.copies = append(w.copies, at.stored)
			if at.beats(w.newest) {
				w.newest = at
			}
		}
		return true, nil
	})
}

// findReplays finds the replays of the letters that came before they were closed.
func (q *Queue) findReplays(ctx context.Context, work map[key]*removal) error {
	return q.run(ctx, pass.Pass{
		Stream:      q.ops,
		Filters:     []string{subject.ReplaysOf(q.service).String()},
		Policy:      jetstream.DeliverAllPolicy,
		HeadersOnly: true,
	}, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		k, _ := keyOf(m.Headers().Get(envelope.HeaderLetterID))
		if w := work[k]; w != nil && meta.Sequence.Stream < w.last.Sequence {
			w.replays = append(w.replays, meta.Sequence.Stream)
		}
		return true, nil
	})
}

// removeLetter removes one letter. The order is what makes it safe: a letter whose
// marks were gone first would be open.
func (q *Queue) removeLetter(ctx context.Context, w *removal, r PurgeRequest, p *Purged) error {
	on, err := subject.DLQMark(q.service, w.id)
	if err != nil {
		return fmt.Errorf("dlq: address mark: %w", err)
	}
	// Replays need no mark: they are over. They make room for the mark where the
	// stream is full.
	for _, sequence := range w.replays {
		if err := q.removeMessage(ctx, q.ops, sequence); err != nil {
			return err
		}
	}
	p.Messages += len(w.replays)
	if len(w.copies) > 0 {
		ours, err := q.removing(ctx, on, w, r)
		if err != nil {
			return err
		}
		if !ours {
			p.Kept++
			return nil
		}
		slices.SortFunc(w.copies, func(a, b stored) int { return w.order(a, b) })
		for _, c := range w.copies {
			if err := q.removeMessage(ctx, q.letters, c.sequence); err != nil {
				return err
			}
		}
	}
	p.Messages += len(w.copies)
	// Up to the mark that we know: whoever acts on a new failure of the same
	// message writes behind it.
	if err := q.removeMarks(ctx, on, w.last.Sequence); err != nil {
		return err
	}
	p.Letters++
	return nil
}

// order puts the copy that the mark names last: as long as it is there, no other
// can open the letter.
func (w *removal) order(a, b stored) int {
	if aLast, bLast := a.is(w.newest.stored), b.is(w.newest.stored); aLast != bLast {
		if aLast {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.sequence, b.sequence)
}

// removing marks the letter so that nobody acts on it any more; false says that
// somebody was first.
func (q *Queue) removing(ctx context.Context, on subject.Subject, w *removal, r PurgeRequest) (bool, error) {
	if w.last.State == StateRemoved && w.newest.is(w.last.letter()) {
		return true, nil // by one that did not finish
	}
	m, err := newMark(StateRemoved, max(w.last.Round, w.newest.round), r.By, r.Reason, w.newest.stored)
	if err != nil {
		return false, err
	}
	m.Note = "closed as " + string(w.last.State)
	written, err := q.write(ctx, on, m, w.last.Sequence)
	if isA[*overtakenError](err) {
		return false, nil
	}
	if err == nil {
		w.last = written
	}
	return err == nil, err
}

// removeMessage removes one stored message; one that is gone is removed.
func (q *Queue) removeMessage(ctx context.Context, from jetstream.Stream, sequence uint64) error {
	err := q.deleteMessage(ctx, from, sequence)
	if err == nil {
		return nil
	}
	if _, getErr := q.getFrom(ctx, from, sequence); errors.Is(getErr, jetstream.ErrMsgNotFound) {
		return nil
	}
	return fmt.Errorf("dlq: remove message %d of %s: %w", sequence, from.CachedInfo().Config.Name, err)
}

func (q *Queue) deleteMessage(ctx context.Context, from jetstream.Stream, sequence uint64) error {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	return from.DeleteMsg(ctx, sequence)
}

// removeMarks removes the marks of a letter up to one of them.
func (q *Queue) removeMarks(ctx context.Context, on subject.Subject, last uint64) error {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	if err := q.ops.Purge(ctx, jetstream.WithPurgeSubject(on.String()), jetstream.WithPurgeSequence(last+1)); err != nil {
		return fmt.Errorf("dlq: remove marks of letter %s: %w", on.LetterID(), err)
	}
	return nil
}
