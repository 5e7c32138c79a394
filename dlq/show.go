package dlq

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Show returns a letter with the original's bytes, all its marks and all its
// stored failures. The bytes are read from the stream's leader. The data of a
// letter is what the platform's users wrote: show it to nobody who may not see
// it. An id that no letter has is an error that matches [ErrNotFound]. It is
// safe for concurrent use.
func (q *Queue) Show(ctx context.Context, letterID string) (Letter, error) {
	l, raw, err := q.read(ctx, letterID)
	if err != nil {
		return Letter{}, err
	}
	on, err := subject.DLQMark(q.service, letterID)
	if err != nil {
		return Letter{}, fmt.Errorf("dlq: show: %w", err)
	}
	if l.Marks, err = q.allMarks(ctx, on); err != nil {
		return Letter{}, err
	}
	if n := len(l.Marks); n > 0 {
		last := l.Marks[n-1]
		l.settle(&last)
	}
	l.Copies, err = q.copies(ctx, raw.Subject, l)
	return l, err
}

// read returns the newest copy of a letter, with data, in the state of one that
// nobody has marked.
func (q *Queue) read(ctx context.Context, letterID string) (Letter, *jetstream.RawStreamMsg, error) {
	k, ok := keyOf(letterID)
	if !ok {
		return Letter{}, nil, &FieldError{"letter id", "must be l and 40 lower-case hex digits, as List and the log give it"}
	}
	sequence, err := q.locate(ctx, k)
	if err != nil {
		return Letter{}, nil, err
	}
	raw, err := q.get(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Letter{}, nil, fmt.Errorf("dlq: letter %s in %s: %w", letterID, q.lettersName, ErrNotFound)
	}
	if err != nil {
		return Letter{}, nil, fmt.Errorf("dlq: read letter %s: %w", letterID, err)
	}
	l, err := storedLetter(raw.Subject, envelope.Header(raw.Header), raw.Sequence, raw.Time)
	if err != nil {
		return Letter{}, nil, &MalformedError{raw.Sequence, err}
	}
	if l.ID != letterID {
		// The stream was rolled back between two requests; the next call sees it.
		return Letter{}, nil, fmt.Errorf("dlq: letter %s in %s: %w", letterID, q.lettersName, ErrNotFound)
	}
	l.Data = raw.Data
	if !l.DataOmitted {
		l.Size = len(raw.Data)
	}
	return l, raw, nil
}

// get reads one stored letter; sequence 0 is none.
func (q *Queue) get(ctx context.Context, sequence uint64) (*jetstream.RawStreamMsg, error) {
	if sequence == 0 {
		return nil, jetstream.ErrMsgNotFound
	}
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	return q.letters.GetMsg(ctx, sequence)
}

// copies returns every stored failure of l up to the newest one: all of them are
// on the subject that the newest one is on, since a replay keeps its original's.
func (q *Queue) copies(ctx context.Context, on string, l Letter) ([]Copy, error) {
	var all []Copy
	err := q.run(ctx, pass{
		stream:      q.letters,
		filters:     []string{on},
		policy:      jetstream.DeliverAllPolicy,
		headersOnly: true,
	}, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		if m.Headers().Get(envelope.HeaderLetterID) == l.ID {
			// A damaged copy is history all the same; what it says is kept.
			c, _ := storedLetter(m.Subject(), envelope.Header(m.Headers()), meta.Sequence.Stream, meta.Timestamp)
			all = append(all, c.copy())
		}
		return meta.Sequence.Stream < l.LetterSequence, nil
	})
	return all, err
}
