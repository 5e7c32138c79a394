package main

import (
	"cmp"
	"context"
	"flag"
	"slices"
	"strconv"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/subject"
)

// defaultGroups is what fits on a screen.
const defaultGroups = 30

type dlqGroups struct {
	selection
	limit int
}

func newDLQGroups(fs *flag.FlagSet) verb {
	v := &dlqGroups{}
	v.register(fs, "all that are not closed; with --batch, any")
	fs.IntVar(&v.limit, "limit", defaultGroups, "at most so many groups, the largest `N`; 0: all")
	return v
}

func (v *dlqGroups) check(c *call) {
	v.selection.check(c)
	if v.limit < 0 {
		c.fault("--limit: %d is negative; 0 means all", v.limit)
	}
}

// group is a group with its service, in JSON.
type group struct {
	Service subject.Service `json:"service"`
	dlq.Group
}

// dlqGroupsResult is the JSON of dlq groups.
type dlqGroupsResult struct {
	Groups  []group           `json:"groups"`  // the largest first
	Letters int               `json:"letters"` // in all groups, those left out included
	States  map[dlq.State]int `json:"states"`  // how many letters in each state
	Omitted int               `json:"omitted"` // smaller groups that --limit left out
}

func (v *dlqGroups) run(ctx context.Context, c *call) error {
	r := dlqGroupsResult{Groups: []group{}, States: map[dlq.State]int{}}
	err := c.withShelves(ctx, &v.owner, func(shelves []shelf) error {
		if err := v.complete(ctx, shelves); err != nil {
			return err
		}
		for _, s := range shelves {
			groups, err := s.Groups(ctx, v.filter)
			if err != nil {
				return err
			}
			for _, g := range groups {
				r.add(group{s.service, g})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(r.Groups, func(a, b group) int { return cmp.Compare(b.Letters, a.Letters) })
	if n := len(r.Groups); v.limit > 0 && n > v.limit {
		r.Groups, r.Omitted = r.Groups[:v.limit], n-v.limit
	}
	return c.print(r, r.text)
}

func (r *dlqGroupsResult) add(g group) {
	r.Groups = append(r.Groups, g)
	r.Letters += g.Letters
	for state, n := range g.States {
		r.States[state] += n
	}
}

// shortFingerprint is how many digits are printed: enough to select by, since all
// commands refuse an ambiguous beginning.
const shortFingerprint = 12

func (r dlqGroupsResult) text(p *page) {
	if len(r.Groups) == 0 {
		p.line("no dead letter matches")
		return
	}
	rows := make([][]string, 0, len(r.Groups))
	for _, g := range r.Groups {
		rows = append(rows, []string{
			g.Fingerprint[:min(shortFingerprint, len(g.Fingerprint))], strconv.Itoa(g.Letters), inStates(g.States),
			age(max(0, p.now.Sub(g.FirstAt))), age(max(0, p.now.Sub(g.LastAt))), string(g.Class), g.Type, g.Durable,
			g.Example[:min(len(g.Example), shortID)], shorten(clean(g.Error), causeWidth),
		})
	}
	p.table([]string{"FINGERPRINT", "LETTERS", "STATES", "FIRST", "LAST", "CLASS", "TYPE", "DURABLE", "EXAMPLE", "CAUSE"}, rows)
	p.gap()
	p.line("%s in %s; next: dvmsg dlq show %s", countStates(r.Letters, r.States), count(len(r.Groups)+r.Omitted, "group"), rows[0][8])
	if r.Omitted > 0 {
		p.line("%d smaller groups are left out; --limit 0 lists all", r.Omitted)
	}
}

// shortID is how many characters of an example's id are printed. It is only where
// to look next, and an ambiguous beginning is refused.
const shortID = 13
