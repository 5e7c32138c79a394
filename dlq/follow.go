package dlq

import (
	"context"
	"time"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

// Followed says what became of replays. Each letter is in one of the lists.
type Followed struct {
	// Resolved letters were handled, FailedAgain ones are open with a new cause.
	Resolved    []string `json:"resolved"`
	FailedAgain []string `json:"failed_again"`
	// Outstanding ones were neither handled nor failed yet. One that nobody
	// handles for long has a durable that does not run; or the durable of replays
	// was deleted and made anew since, which skips what was outstanding, and only
	// Request.Again sends it once more.
	Outstanding []string `json:"outstanding"`
	// Other ones somebody discarded or removed meanwhile.
	Other []string `json:"other"`
}

// Bounds of the pause between two looks at the same letters.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = 2 * time.Second
)

// Follow waits until each of the letters was resolved or has failed again, and
// says which. If ctx ends before, it returns what is known and the cause; give it
// a deadline, since a replay whose durable does not run, or has skipped it, is
// outstanding for ever. Progress, if not nil, is called after each look.
//
// A look costs one request for each letter that is outstanding, and the pause
// grows to two seconds. It is safe for concurrent use.
func (q *Queue) Follow(ctx context.Context, letterIDs []string, progress func(Followed)) (Followed, error) {
	f := Followed{Resolved: []string{}, FailedAgain: []string{}, Outstanding: letterIDs, Other: []string{}}
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if err := q.look(ctx, &f); err != nil {
			return f, err
		}
		if progress != nil {
			progress(f)
		}
		if len(f.Outstanding) == 0 {
			return f, nil
		}
		if sleep.For(ctx, pause); ctx.Err() != nil {
			return f, context.Cause(ctx)
		}
	}
}

// look asks for the state of each letter that was outstanding.
func (q *Queue) look(ctx context.Context, f *Followed) error {
	waiting := f.Outstanding
	f.Outstanding = make([]string, 0, len(waiting))
	// Copies first: one that is stored meanwhile is seen at the next look.
	places, err := q.places(ctx, waiting)
	if err != nil {
		f.Outstanding = waiting
		return err
	}
	for i, id := range waiting {
		_, last, err := q.markOf(ctx, id)
		if err != nil {
			f.Outstanding = append(f.Outstanding, waiting[i:]...)
			return err
		}
		if last == nil || places[i].sequence == 0 {
			f.Other = append(f.Other, id) // what was replayed has a mark until it is removed
			continue
		}
		switch derive(places[i], last) {
		case StateResolved:
			f.Resolved = append(f.Resolved, id)
		case StateOpen:
			f.FailedAgain = append(f.FailedAgain, id)
		case StateClaimed, StateReplayed:
			f.Outstanding = append(f.Outstanding, id)
		default:
			f.Other = append(f.Other, id)
		}
	}
	return nil
}
