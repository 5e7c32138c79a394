package dlq

import (
	"context"
	"fmt"

	"codeberg.org/dataverket/messaging/subject"
)

// Closed reports whether nothing is left to do about the newest failure of a
// letter: its replay was handled, or an operator discarded it. An ordered
// consumer asks it about the letters that hold a key. An id that no letter has is
// an error that matches [ErrNotFound]. It is safe for concurrent use.
func (q *Queue) Closed(ctx context.Context, letterID string) (bool, error) {
	at, err := q.locate(ctx, letterID)
	if err != nil {
		return false, err
	}
	l, _, err := q.read(ctx, letterID, at.sequence)
	if err != nil {
		return false, err
	}
	on, err := subject.DLQMark(q.service, letterID)
	if err != nil {
		return false, fmt.Errorf("dlq: look at letter: %w", err)
	}
	last, err := q.lastMark(ctx, on)
	if err != nil {
		return false, err
	}
	l.settle(last)
	return l.State.Closed(), nil
}
