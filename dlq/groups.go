package dlq

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// Group is letters that failed alike: same class, durable, type, and error but
// for its variable parts.
type Group struct {
	// Fingerprint is what they have in common, for Filter.Fingerprint.
	Fingerprint string         `json:"fingerprint"`
	Class       envelope.Class `json:"class"`
	Durable     string         `json:"durable"`
	Type        string         `json:"type,omitempty"`
	// Error is the error without its variable parts, which "#" stands for, in at
	// most 256 bytes.
	Error string `json:"error,omitempty"`
	// Letters is how many letters there are, and States how many in each state.
	Letters int           `json:"letters"`
	States  map[State]int `json:"states"`
	// FirstAt and LastAt are when the first and the last of these failures was
	// stored, by the server's clock. A letter that failed again after a replay, and
	// alike, counts from its first failure.
	FirstAt time.Time `json:"first_at"`
	LastAt  time.Time `json:"last_at"`
	// Example is the id of the letter that failed last.
	Example string `json:"example"`
}

// maxGroupError bounds what a group keeps of an error: in the worst case each
// letter is a group.
const maxGroupError = 256

// Groups counts the letters that f lets through by fingerprint, the largest group
// first. It reads as [Queue.List] does, in one pass however many letters there
// are, and holds about 150 bytes of each and about 1 KiB of each group. What is
// no letter is passed over; List names it. It is safe for concurrent use.
func (q *Queue) Groups(ctx context.Context, f Filter) ([]Group, error) {
	groups := map[string]*Group{}
	seen := map[key]counted{}
	g := newGathering(f)
	g.keep = func(k key, l *Letter) {
		c := counted{groupOf(groups, l), l.place(), l.State, l.StoredAt}
		if before, ok := seen[k]; ok && before.group == c.group {
			c.first = before.first
		}
		seen[k] = c
	}
	g.drop = func(k key) { delete(seen, k) }
	if err := q.gather(ctx, g); err != nil {
		return nil, err
	}
	examples := map[*Group]uint64{}
	for k, c := range seen {
		c.group.count(c)
		if c.sequence > examples[c.group] {
			examples[c.group], c.group.Example = c.sequence, k.letterID()
		}
	}
	all := make([]Group, 0, len(groups))
	for _, g := range groups {
		if g.Letters > 0 { // else only older copies were in it
			all = append(all, *g)
		}
	}
	slices.SortFunc(all, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Letters, a.Letters), b.LastAt.Compare(a.LastAt), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return all, nil
}

// counted is what is held of a letter: only behind the last one it is known which
// copies count.
type counted struct {
	group *Group
	place
	state State
	first time.Time // its first failure in the group
}

// groupOf returns the group of l. Texts are copied, so that a group does not keep
// all headers of its first letter in memory.
func groupOf(groups map[string]*Group, l *Letter) *Group {
	if g, ok := groups[l.Fingerprint]; ok {
		return g
	}
	g := &Group{
		Fingerprint: strings.Clone(l.Fingerprint), Class: envelope.Class(strings.Clone(string(l.Class))),
		Durable: strings.Clone(l.Durable), Type: strings.Clone(l.Type),
		Error: strings.Clone(shorten(normalise(l.Error), maxGroupError)), States: map[State]int{},
	}
	groups[g.Fingerprint] = g
	return g
}

// count takes one letter into the numbers.
func (g *Group) count(c counted) {
	g.Letters++
	g.States[c.state]++
	if g.FirstAt.IsZero() || c.first.Before(g.FirstAt) {
		g.FirstAt = c.first
	}
	if at := c.at.UTC(); at.After(g.LastAt) {
		g.LastAt = at
	}
}
