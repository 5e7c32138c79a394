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

// gathering is a listing under way. Only behind the last stored letter is it
// known which copy of each letter is the newest.
type gathering struct {
	filter Filter
	marks  map[key]Mark
	hold   int

	newest map[key]uint64
	last   uint64
	lastAt time.Time
	// held holds the letters that are let through; nil when they were too many.
	held map[key]Letter
	// left says that the loop was left.
	left bool
}

func newGathering(f Filter, marks map[key]Mark, hold int) *gathering {
	return &gathering{filter: f, marks: marks, hold: hold, newest: map[key]uint64{}, held: map[key]Letter{}}
}

// take sees each stored letter in the first pass. What is no letter is said at
// once.
func (g *gathering) take(m jetstream.Msg, meta *jetstream.MsgMetadata, yield func(Letter, error) bool) bool {
	g.last, g.lastAt = meta.Sequence.Stream, meta.Timestamp
	l, k, err := g.read(m, meta)
	if err != nil {
		g.left = !yield(l, &MalformedError{meta.Sequence.Stream, err})
		return !g.left
	}
	g.newest[k] = l.LetterSequence
	switch {
	case g.held == nil:
	case !g.filter.matches(&l):
		delete(g.held, k) // an older copy may have been let through
	case len(g.held) == g.hold:
		g.held = nil
	default:
		g.held[k] = l
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
func (g *gathering) yieldHeld(ctx context.Context, yield func(Letter, error) bool) error {
	letters := slices.SortedFunc(maps.Values(g.held), func(a, b Letter) int {
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

// yieldNewest sees each stored letter in the second pass, up to the one that
// ended the first.
func (g *gathering) yieldNewest(m jetstream.Msg, meta *jetstream.MsgMetadata, yield func(Letter, error) bool) bool {
	if meta.Sequence.Stream > g.last {
		return false
	}
	l, k, err := g.read(m, meta)
	if err != nil || g.newest[k] != l.LetterSequence || !g.filter.matches(&l) {
		return true
	}
	return yield(l, nil)
}
