package dlq

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
	"codeberg.org/dataverket/messaging/subject"
)

// Show returns a letter with the original's bytes, all its marks and all its
// stored failures. The bytes are read from the stream's leader. The data of a
// letter is what the platform's users wrote: show it to nobody who may not see
// it. An id that no letter has is an error that matches [ErrNotFound]. It is
// safe for concurrent use.
func (q *Queue) Show(ctx context.Context, letterID string) (Letter, error) {
	at, err := q.locate(ctx, letterID)
	if err != nil {
		return Letter{}, err
	}
	l, raw, err := q.read(ctx, letterID, at.sequence)
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

// read returns the copy of a letter that is stored at sequence, with data, in the
// state of one that nobody has marked.
func (q *Queue) read(ctx context.Context, letterID string, sequence uint64) (Letter, *jetstream.RawStreamMsg, error) {
	raw, err := q.get(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Letter{}, nil, q.notFound(letterID)
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
		return Letter{}, nil, q.notFound(letterID)
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
	return q.getFrom(ctx, q.letters, sequence)
}

// getFrom reads one stored message from the leader of its stream.
func (q *Queue) getFrom(ctx context.Context, stream jetstream.Stream, sequence uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	return stream.GetMsg(ctx, sequence)
}

// copies returns every stored failure of l: all of them are on the subject that
// the newest one is on, since a replay keeps its original's.
func (q *Queue) copies(ctx context.Context, on string, l Letter) ([]Copy, error) {
	var all []Copy
	err := q.run(ctx, pass.Pass{
		Stream:      q.letters,
		Filters:     []string{on},
		Policy:      jetstream.DeliverAllPolicy,
		HeadersOnly: true,
	}, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		if m.Headers().Get(envelope.HeaderLetterID) == l.ID {
			// A damaged copy is history all the same; what it says is kept.
			c, _ := storedLetter(m.Subject(), envelope.Header(m.Headers()), meta.Sequence.Stream, meta.Timestamp)
			all = append(all, c.copy())
		}
		return true, nil
	})
	return all, err
}
