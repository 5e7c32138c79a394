package dlq

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/subject"
)

// Closed reports whether nothing is left to do about the newest failure of a
// letter: its replay was handled, an operator discarded it, or it is not there any
// more, since [Queue.Purge] removes closed letters only. A letter that is damaged is
// no error: its marks decide. An ordered consumer asks it about the letters that
// hold a key. It is safe for concurrent use.
func (q *Queue) Closed(ctx context.Context, letterID string) (bool, error) {
	at, err := q.locate(ctx, letterID)
	if errors.Is(err, ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	raw, err := q.get(ctx, at.sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // removed since it was located
		return true, nil
	case err != nil:
		return false, fmt.Errorf("dlq: look at letter %s: %w", letterID, err)
	case !raw.Time.Equal(at.at):
		return false, fmt.Errorf("dlq: look at letter %s: its stream was rolled back meanwhile; ask again", letterID)
	}
	on, err := subject.DLQMark(q.service, letterID)
	if err != nil {
		return false, fmt.Errorf("dlq: look at letter: %w", err)
	}
	last, err := q.lastMark(ctx, on)
	if err != nil {
		return false, err
	}
	return derive(at, last).Closed(), nil
}
