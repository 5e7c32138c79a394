package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"unique"

	"github.com/google/uuid"
)

// Report is what became of the letters that a Filter means.
//
// Its counts are of the moment: whether a replay was handled is not known yet.
// [Queue.Follow] waits for that, and List with Filter.Batch tells it afterwards,
// in any process: resolved, open (failed again), or replayed (outstanding).
type Report struct {
	// Batch names this call, a UUID: all its marks have it. Empty in a dry run.
	Batch string
	// Matched is how many letters the filter lets through, those of Filter.IDs
	// that do not exist included. More than there are outcomes means that it
	// stopped early.
	Matched int
	// Done letters were acted on, or would be; Refused ones are as they were, for
	// a reason of their own; of Failed ones it is not known.
	Done    int
	Refused int
	Failed  int
	// Outcomes holds one entry for each letter, in the order of acting.
	Outcomes []Outcome
}

// Outcome is what became of one letter.
type Outcome struct {
	LetterID string
	// State is what the letter is now; empty where it could not be read.
	State State
	// Replay says more about a replay; nil where there was none.
	Replay *Replay
	// Err is why nothing was done, or what is not known; nil for done. The types
	// are those of the same call for a single letter.
	Err error
}

// Refused reports whether the letter is as it was, for a reason of its own that
// Err says: somebody else was first, it is closed, or it cannot be acted on.
func (o Outcome) Refused() bool {
	for _, own := range [...]error{ErrNotFound, ErrNoData, ErrNoDurable, ErrForgotten} {
		if errors.Is(o.Err, own) {
			return true
		}
	}
	for _, is := range [...]func(error) bool{
		isA[*ConflictError], isA[*ResolvedError], isA[*SecurityError], isA[*AddressError],
		isA[*EditError], isA[*MalformedError],
	} {
		if is(o.Err) {
			return true
		}
	}
	return false
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// add counts one outcome.
func (r *Report) add(o Outcome) {
	r.Outcomes = append(r.Outcomes, o)
	switch {
	case o.Err == nil:
		r.Done++
	case o.Refused():
		r.Refused++
	default:
		r.Failed++
	}
}

// Replayed returns the ids of the letters that were replayed, for [Queue.Follow].
func (r Report) Replayed() []string {
	var all []string
	for _, o := range r.Outcomes {
		if o.Replay != nil && o.Replay.MessageID != "" {
			all = append(all, o.LetterID)
		}
	}
	return all
}

// giveUp is how many letters in a row may fail for reasons that are not their
// own. One such letter must not block the rest; a broker that does not answer
// must not be asked a thousand times.
const giveUp = 3

// all acts on every letter that f means.
func (q *Queue) all(ctx context.Context, f Filter, r Request, a act) (Report, error) {
	if err := r.validate(a); err != nil {
		return Report{}, err
	}
	if f.isZero() {
		return Report{}, &FieldError{"Filter", "is empty: say which letters; State: StateOpen means all open ones"}
	}
	picks, report, err := q.choose(ctx, f, r, a)
	if err != nil {
		return report, err
	}
	o, err := newOrder(r)
	if err != nil {
		return report, err
	}
	report.Batch = o.batch
	err = q.each(ctx, picks, &report, o, a)
	q.logReport(ctx, report, o, a, err)
	return report, err
}

// newOrder gives a request the id that its marks share.
func newOrder(r Request) (order, error) {
	if r.DryRun {
		return order{Request: r}, nil
	}
	batch, err := uuid.NewV7()
	if err != nil {
		return order{}, fmt.Errorf("dlq: make batch id: %w", err)
	}
	return order{r, batch.String()}, nil
}

// each acts on the letters one after another: the order of their originals is
// kept, and one at a time is faster than any rate that is good for a service.
func (q *Queue) each(ctx context.Context, picks []pick, report *Report, o order, a act) error {
	pace := newPacer(cmp.Or(o.Rate, a.rate))
	if o.DryRun {
		pace = newPacer(0)
	}
	inARow := 0
	for _, p := range picks {
		if err := pace.wait(ctx); err != nil {
			return stopped(a, report, err)
		}
		out := Outcome{LetterID: p.id}
		if p.sequence == 0 {
			out.Err = q.notFound(p.id)
		} else {
			out.State, out.Replay, out.Err = a.do(ctx, p, o)
		}
		report.add(out)
		if o.Progress != nil {
			o.Progress(*report)
		}
		if out.Err == nil {
			pace.acted()
		}
		if inARow++; out.Err == nil || out.Refused() {
			inARow = 0
		}
		if inARow == giveUp || errors.Is(out.Err, ErrFull) || out.Err != nil && ctx.Err() != nil {
			return stopped(a, report, out.Err)
		}
	}
	return nil
}

// stopped says how far it came.
func stopped(a act, report *Report, err error) error {
	return fmt.Errorf("dlq: %s: stopped after %d of %d letters: %w", a.name, len(report.Outcomes), report.Matched, err)
}

// chosen is a letter that a filter means, and where its original is.
type chosen struct {
	pick
	durable, stream unique.Handle[string] // many letters have the same
	original        uint64
}

// before orders letters as their originals came to their durable. The order of the
// copies in the dead-letter stream is that of the failures, which is another one as
// soon as a letter was replayed by itself and failed again.
func (c chosen) before(other chosen) int {
	return cmp.Or(
		cmp.Compare(c.durable.Value(), other.durable.Value()),
		cmp.Compare(c.stream.Value(), other.stream.Value()),
		cmp.Compare(c.original, other.original),
		cmp.Compare(c.sequence, other.sequence),
	)
}

// choose finds the letters that f means, in one pass: of each durable and stream
// those with the oldest original first. Ids that no letter has stand at the end,
// without a place.
//
// Where a claim can be taken over, an abandoned one counts as open: who repeats a
// call that was interrupted means the letter in the middle too.
func (q *Queue) choose(ctx context.Context, f Filter, r Request, a act) ([]pick, Report, error) {
	meant := map[key]chosen{}
	g := newGathering(f)
	if a.takesOver && f.State == StateOpen {
		info, err := q.info(ctx, q.ops)
		if err != nil {
			return nil, Report{}, err
		}
		g.filter.abandoned = info.TimeStamp.Add(-q.config.ClaimLease)
	}
	g.keep = func(k key, l *Letter) {
		p := pick{id: l.ID, place: l.place()}
		if l.Mark != nil {
			p.mark = l.Mark.Sequence
		}
		meant[k] = chosen{p, unique.Make(l.Durable), unique.Make(l.Stream), l.Sequence}
	}
	g.drop = func(k key) { delete(meant, k) }
	if err := q.gather(ctx, g); err != nil {
		return nil, Report{}, err
	}
	picks := make([]pick, 0, len(meant))
	for _, c := range slices.SortedFunc(maps.Values(meant), chosen.before) {
		picks = append(picks, c.pick)
	}
	for _, id := range f.IDs {
		k, _ := keyOf(id)
		if _, known := g.newest[k]; !known {
			picks = append(picks, pick{id: id})
			g.newest[k] = place{} // named twice, missing once
		}
	}
	if r.Edit != nil && r.Edit.single && len(picks) > 1 {
		return nil, Report{Matched: len(picks)}, &FieldError{"Request.Edit", "is of ReplaceData, which is for one letter, and the filter means more: use Transform"}
	}
	if most := cmp.Or(r.Max, DefaultMax); len(picks) > most {
		return nil, Report{Matched: len(picks)}, &TooManyError{Matched: len(picks), Max: most}
	}
	return picks, Report{Matched: len(picks), Outcomes: []Outcome{}}, nil
}

// logReport writes the one line that says who did what to how many letters.
func (q *Queue) logReport(ctx context.Context, r Report, o order, a act, err error) {
	if o.DryRun {
		return
	}
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
	}
	q.config.Logger.LogAttrs(ctx, level, "dead letters: "+a.name,
		slog.String("batch", r.Batch), slog.Int("matched", r.Matched), slog.Int("done", r.Done),
		slog.Int("refused", r.Refused), slog.Int("failed", r.Failed),
		slog.String("by", o.By), slog.String("reason", o.Reason), slog.Any("error", err))
}
