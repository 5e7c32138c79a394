package dlq

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Filter says which letters [Queue.List] yields: those that satisfy every field
// that is set. The zero value yields what an operator has to look at: every
// letter that is not closed, so open, claimed, replayed and unknown ones.
type Filter struct {
	// CorrelationID, TenantID, Type, Durable and Fingerprint are compared as a
	// whole. Default: any.
	CorrelationID string
	TenantID      string
	Type          string
	Durable       string
	Fingerprint   string

	// Class is the class of the last failure. Default: any.
	Class envelope.Class

	// State is one state, or StateAny for all letters.
	// Default: every state that is not closed.
	State State

	// Since and Until bound when the last failure was stored, by the server's
	// clock: not before Since, and before Until. Default: no bound.
	Since, Until time.Time
}

// validate returns every fault of f at once.
func (f Filter) validate() error {
	var faults []error
	if !f.State.filterable() {
		faults = append(faults, &FieldError{"Filter.State", "is no state: use a State constant, or StateAny for all"})
	}
	switch f.Class {
	case "", envelope.ClassPoison, envelope.ClassExhausted, envelope.ClassDecode,
		envelope.ClassSecurity, envelope.ClassCrash:
	default:
		faults = append(faults, &FieldError{"Filter.Class", "is no class: use a Class constant of package envelope"})
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		faults = append(faults, &FieldError{"Filter.Until", "is not after Since: nothing can lie between them"})
	}
	return errors.Join(faults...)
}

// matches reports whether f lets l through.
func (f Filter) matches(l *Letter) bool {
	for _, c := range [...]struct{ want, have string }{
		{f.CorrelationID, l.CorrelationID}, {f.TenantID, l.TenantID}, {f.Type, l.Type},
		{f.Durable, l.Durable}, {f.Fingerprint, l.Fingerprint}, {string(f.Class), string(l.Class)},
	} {
		if c.want != "" && c.want != c.have {
			return false
		}
	}
	return f.matchesState(l.State) && f.matchesTime(l.StoredAt)
}

func (f Filter) matchesState(s State) bool {
	switch f.State {
	case StateAny:
		return true
	case "":
		return !s.Closed()
	}
	return s == f.State
}

func (f Filter) matchesTime(at time.Time) bool {
	return !at.Before(f.Since) && (f.Until.IsZero() || at.Before(f.Until))
}

// List yields the letters that f lets through, each once, in the order in which
// their newest copies were stored, without their data.
//
// It reads the last mark of each letter and the headers of all stored letters in
// pages, once when at most 5,000 letters are let through and twice when more
// are, and holds no more than those 5,000, about 60 bytes of each letter and the
// last mark of each marked one. What is stored while it reads may be missing.
// Leaving the loop early is fine; the reading consumers are removed from the
// server in any case.
//
// An error of type [*MalformedError] concerns one stored message that is no
// letter, and the listing goes on behind it if the loop does; every other error
// ends it. It is safe for concurrent use, also with Replay of what it yields.
func (q *Queue) List(ctx context.Context, f Filter) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		if err := q.list(ctx, f, yield); err != nil {
			yield(Letter{}, err)
		}
	}
}

// list is List with an error at the end instead of in the sequence.
func (q *Queue) list(ctx context.Context, f Filter, yield func(Letter, error) bool) error {
	if err := f.validate(); err != nil {
		return err
	}
	marks, err := q.lastMarks(ctx)
	if err != nil {
		return err
	}
	g := newGathering(f, marks, q.hold)
	err = q.run(ctx, q.allLetters(), func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		return g.take(m, meta, yield), nil
	})
	if err != nil || g.left {
		return err
	}
	q.adopt(g)
	if g.held != nil {
		return g.yieldHeld(ctx, yield)
	}
	return q.run(ctx, q.allLetters(), func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		return g.yieldNewest(m, meta, yield), nil
	})
}

// allLetters is the pass over the headers of all letters.
func (q *Queue) allLetters() pass {
	return pass{
		stream:      q.letters,
		filters:     []string{subject.DeadLettersOf(q.service).String()},
		policy:      jetstream.DeliverAllPolicy,
		headersOnly: true,
	}
}

// lastMarks returns the mark in force of each marked letter.
func (q *Queue) lastMarks(ctx context.Context) (map[key]Mark, error) {
	marks := map[key]Mark{}
	err := q.run(ctx, pass{
		stream:  q.ops,
		filters: []string{subject.MarksOf(q.service).String()},
		policy:  jetstream.DeliverLastPerSubjectPolicy,
	}, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		on, err := subject.Parse(m.Subject())
		if err != nil {
			return true, nil // nothing that a letter could be found by
		}
		if k, ok := keyOf(on.LetterID()); ok {
			marks[k] = readMark(m.Data(), meta.Sequence.Stream, meta.Timestamp)
		}
		return true, nil
	})
	return marks, err
}

// storedLetter reads a letter as the stream holds it, in the state of one that
// nobody has marked. The subject it is stored on says what the original's was,
// if the header does not.
func storedLetter(on string, h envelope.Header, sequence uint64, at time.Time) (Letter, error) {
	l, err := parseLetter(h)
	if text := h.Get(sizeHeader); text != "" && !l.DataOmitted {
		l.Size, _ = count(text)
	}
	if s, parseErr := subject.Parse(on); parseErr == nil && l.Subject == "" {
		l.Subject = s.Original()
	}
	l.LetterSequence, l.StoredAt = sequence, at.UTC()
	l.settle(nil)
	return l, err
}

// sizeHeader is how the server tells the size of a body that it left out.
const sizeHeader = "Nats-Msg-Size"
