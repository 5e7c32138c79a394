package sites

import (
	"context"
	"errors"
	"time"
)

const (
	// young is how long ago a window must have ended to be compared while messages
	// come: in a younger one the two sites always differ by what comes just now.
	young = time.Minute
	// maxLacking is how many messages one comparison has sent again; the next one
	// finds the others.
	maxLacking = 50_000
)

// errOnItsWay says that nothing can be said yet: what the destination lacks may just
// be on its way.
var errOnItsWay = errors.New("messages are on their way; what is missing is told when they have come")

// compared is what a destination knows of a flow's two ends from one comparison to
// the next. It belongs to one goroutine.
type compared struct {
	arrival
	w     *Watcher
	own   *index
	equal map[place]settled // windows that differ and lack nothing
	still stillness
	sent  string // an id that was sent again by the last comparison
	jump  uint64 // how far the stream of what is resent was moved for it
}

// place names a window.
type place struct {
	kind  kind
	width int64
	start int64
}

// settled is a pair of digests whose ids were compared.
type settled struct {
	origin, own digest
	lacks       uint64 // messages that the origin has not
}

func newCompared(w *Watcher, a arrival, horizon time.Duration) *compared {
	x := &index{stream: a.stream.Name, arrival: &a, horizon: horizon}
	for _, m := range a.source.Subjects {
		x.filters = append(x.filters, m.To)
	}
	return &compared{arrival: a, w: w, own: x, equal: map[place]settled{}}
}

// comparison is one comparison.
type comparison struct {
	*compared
	from    int64  // the first minute that is compared
	before  mark   // of the own index, before the origin was asked
	resends uint64 // the sequence that the stream of what is resent gave out last
	windows int    // of a minute, that were looked at
}

// difference is what was found.
type difference struct {
	lacking []heldID // what the destination has not
	lacks   uint64   // what the origin has not
	young   bool     // a window was left for the next comparison
	more    bool     // there is more that is lacking
}

func (d *difference) join(e difference) {
	d.lacking = append(d.lacking, e.lacking...)
	d.lacks += e.lacks
	d.young, d.more = d.young || e.young, d.more || e.more
}

// compare finds what the two ends have not.
func (o *compared) compare(ctx context.Context) (*comparison, difference, error) {
	c := &comparison{compared: o}
	var all difference
	if err := o.catchUp(ctx); err != nil {
		return c, all, err
	}
	c.from = max(o.own.complete(), minute(time.Now().Add(-o.own.horizon)))
	end := minute(time.Now().Add(2*maxHorizon)) + 1
	for _, k := range []kind{byID, byStore} {
		one, err := c.span(ctx, k, coarse, c.from, end)
		all.join(one)
		if err != nil {
			return c, all, err
		}
	}
	for at := range o.equal {
		if at.start < c.from-coarse {
			delete(o.equal, at)
		}
	}
	return c, all, nil
}

// catchUp brings the own index up to date, however long that takes.
func (o *compared) catchUp(ctx context.Context) error {
	for {
		built := o.own.mark().built
		done, err := o.own.catchUp(ctx, o.w.conn.JetStream())
		if !o.own.mark().built.Equal(built) {
			clear(o.equal) // it is another stream, or was long ago
		}
		if err != nil || done {
			return err
		}
	}
}

// span compares the windows of one width in [from, until), and looks closer at those
// that differ.
func (c *comparison) span(ctx context.Context, k kind, width, from, until int64) (difference, error) {
	var all difference
	if err := c.catchUp(ctx); err != nil {
		return all, err
	}
	c.before = c.own.mark()
	before := c.own.digests(k, width, from, until)
	origin, complete, last, err := c.askDigests(ctx, k, width, from, until)
	if err != nil {
		return all, err
	}
	fresh := c.before.position >= last || c.before == c.own.mark()
	after := c.own.digests(k, width, from, until)
	for _, at := range starts(origin, before) {
		if width == 1 {
			c.windows++
		}
		if origin[at] == before[at] || origin[at] == after[at] {
			continue
		}
		here, pair := place{k, width, at}, settled{origin: origin[at], own: after[at]}
		if known, ok := c.equal[here]; ok && known.origin == pair.origin && known.own == pair.own {
			all.lacks += known.lacks
			continue
		}
		if len(all.lacking) >= maxLacking {
			all.more = true
			break
		}
		var one difference
		switch {
		case width > 1:
			one, err = c.span(ctx, k, 1, max(at, from), min(at+width, until))
		case !fresh && time.Since(timeOf(at+1)) < young:
			one.young = true
		default:
			one, err = c.ids(ctx, here, at >= complete)
		}
		all.join(one)
		if err != nil {
			return all, err
		}
		if len(one.lacking) == 0 && !one.young {
			pair.lacks = one.lacks
			c.equal[here] = pair
		}
	}
	return all, nil
}

// askDigests asks the origin for its digests, and waits until all that they count
// has come.
func (c *comparison) askDigests(ctx context.Context, k kind, width, from, until int64) (all map[int64]digest, complete int64, last uint64, err error) {
	all = map[int64]digest{}
	for next := from; ; {
		var a digestAnswer
		q := digestQuestion{question: c.question(), Kind: k, Width: width, From: next, Until: until}
		if err := c.ask(ctx, verbDigest, q, &a); err != nil {
			return nil, 0, 0, err
		}
		for _, w := range a.Windows {
			s, err := parseSum(w.Sum)
			if err != nil {
				return nil, 0, 0, c.malformed("a sum is not 32 hexadecimal digits")
			}
			all[w.Start] = digest{w.Count, s}
		}
		c.resends, complete, last = a.Resends, a.Complete, a.Last
		if err := c.arrive(ctx, a.Last, a.Resent); err != nil {
			return nil, 0, 0, err
		}
		if a.Next == 0 {
			return all, complete, last, nil
		}
		if a.Next <= next {
			return nil, 0, 0, c.malformed("its pages do not go on")
		}
		next = a.Next
	}
}
