package dlq

import (
	"context"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
	"codeberg.org/dataverket/messaging/subject"
)

// List yields the letters that f lets through, each once, in the order in which
// their last failures were stored, without their data.
//
// It reads the last mark of each letter and the headers of all stored letters in
// pages, once when at most 5,000 letters are let through and twice when more
// are, and holds no more than those 5,000, about 100 bytes of each letter and the
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
	held, tooMany := map[key]Letter{}, false
	g := newGathering(f)
	g.malformed = func(err error) bool { return yield(Letter{}, err) }
	g.drop = func(k key) { delete(held, k) }
	g.keep = func(k key, l *Letter) {
		if tooMany = tooMany || len(held) >= q.hold; tooMany {
			clear(held)
			return
		}
		held[k] = *l
	}
	if err := q.gather(ctx, g); err != nil || g.left {
		return err
	}
	if !tooMany {
		return yieldHeld(ctx, held, yield)
	}
	return q.run(ctx, q.allLetters(), func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		return g.yieldNewest(m, meta, yield), nil
	})
}

// allLetters is the pass over the headers of all letters.
func (q *Queue) allLetters() pass.Pass {
	return pass.Pass{
		Stream:      q.letters,
		Filters:     []string{subject.DeadLettersOf(q.service).String()},
		Policy:      jetstream.DeliverAllPolicy,
		HeadersOnly: true,
	}
}

// lastMarks returns the mark in force of each marked letter.
func (q *Queue) lastMarks(ctx context.Context) (map[key]Mark, error) {
	marks := map[key]Mark{}
	err := q.run(ctx, pass.Pass{
		Stream:  q.ops,
		Filters: []string{subject.MarksOf(q.service).String()},
		Policy:  jetstream.DeliverLastPerSubjectPolicy,
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
