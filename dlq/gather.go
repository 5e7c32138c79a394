package dlq

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
)

// maxHeld is how many letters a listing holds. An operator who filters gets his
// answer from one pass, however many letters there are; a listing of more takes
// a second pass rather than the memory.
const maxHeld = 5000

// gathering is one reading of all letters. Only behind the last stored one is it
// known which copy of each letter is the newest, so what was kept of a copy is
// given up when a newer one comes.
type gathering struct {
	filter *matcher
	marks  map[key]Mark

	// keep sees a copy that the filter lets through and that is the newest of its
	// letter so far; drop sees a letter whose newest copy it does not let through.
	keep func(key, *Letter)
	drop func(key)
	// malformed sees what is no letter, at once; false leaves. Default: passed
	// over.
	malformed func(error) bool

	newest map[key]place
	last   uint64
	lastAt time.Time
	left   bool // malformed has left
}

// newGathering returns a gathering that keeps nothing yet.
func newGathering(f Filter) *gathering {
	return &gathering{
		filter: newMatcher(f), newest: map[key]place{},
		keep: func(key, *Letter) {}, drop: func(key) {}, malformed: func(error) bool { return true },
	}
}

// gather reads the last marks and then all letters.
func (q *Queue) gather(ctx context.Context, g *gathering) (err error) {
	if err := g.filter.validate(); err != nil {
		return err
	}
	if g.marks, err = q.lastMarks(ctx); err != nil {
		return err
	}
	err = q.run(ctx, q.allLetters(), func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		return g.take(m, meta), nil
	})
	if err == nil && !g.left {
		q.adopt(g)
	}
	return err
}

// take sees each stored letter.
func (g *gathering) take(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
	g.last, g.lastAt = meta.Sequence.Stream, meta.Timestamp
	l, k, err := g.read(m, meta)
	switch {
	case err != nil:
		g.left = !g.malformed(&MalformedError{meta.Sequence.Stream, err})
		return !g.left
	case !l.place().beats(g.newest[k]):
		return true // a late second writing of an earlier failure
	}
	g.newest[k] = l.place()
	if g.filter.matches(k, &l) {
		g.keep(k, &l)
	} else {
		g.drop(k) // an older copy may have been let through
	}
	return true
}

// read returns the letter in the state that its last mark gives it.
func (g *gathering) read(m jetstream.Msg, meta *jetstream.MsgMetadata) (Letter, key, error) {
	l, err := storedLetter(m.Subject(), envelope.Header(m.Headers()), meta.Sequence.Stream, meta.Timestamp)
	l.header = nil // all of it that counts is in the fields
	if err != nil {
		return l, key{}, err
	}
	k, _ := keyOf(l.ID)
	if mark, marked := g.marks[k]; marked {
		l.settle(&mark)
	}
	return l, k, nil
}

// yieldHeld ends a listing of one pass.
func yieldHeld(ctx context.Context, held map[key]Letter, yield func(Letter, error) bool) error {
	letters := slices.SortedFunc(maps.Values(held), func(a, b Letter) int {
		return cmp.Compare(a.LetterSequence, b.LetterSequence)
	})
	for _, l := range letters {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !yield(l, nil) {
			return nil
		}
	}
	return nil
}

// yieldNewest sees each stored letter in the second pass of a listing, up to the
// one that ended the first.
func (g *gathering) yieldNewest(m jetstream.Msg, meta *jetstream.MsgMetadata, yield func(Letter, error) bool) bool {
	if meta.Sequence.Stream > g.last {
		return false
	}
	l, k, err := g.read(m, meta)
	if err != nil || g.newest[k].sequence != l.LetterSequence || !g.filter.matches(k, &l) {
		return true
	}
	return yield(l, nil)
}
