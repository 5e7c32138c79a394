package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// defaultLimit keeps a listing readable, and its memory small.
const defaultLimit = 1000

type dlqList struct {
	selection
	limit int
}

func newDLQList(fs *flag.FlagSet) verb {
	v := &dlqList{}
	v.register(fs, "all that are not closed; with --batch, any")
	fs.IntVar(&v.limit, "limit", defaultLimit, "at most so many letters, the newest `N`; 0: all")
	return v
}

func (v *dlqList) check(c *call) {
	v.selection.check(c)
	if v.limit < 0 {
		c.fault("--limit: %d is negative; 0 means all", v.limit)
	}
}

// listed is a letter with its service, in JSON.
type listed struct {
	Service subject.Service `json:"service"`
	dlq.Letter
}

// known is constant: the headers of the contract, whose values are no secrets.
var known = []string{
	envelope.HeaderMsgID, envelope.HeaderCorrelationID, envelope.HeaderCausationID, envelope.HeaderEventVersion,
	envelope.HeaderTenantID, envelope.HeaderTraceparent, envelope.HeaderTraceID, envelope.HeaderType,
	envelope.HeaderSource, envelope.HeaderSite,
}

// withheld returns the headers of an original without the values of foreign ones:
// they may be cookies or tokens of whoever sent the message.
func withheld(h envelope.Header) envelope.Header {
	shown := maps.Clone(h)
	for name, values := range h {
		if slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			continue
		}
		shown[name] = nil
		for _, v := range values {
			shown[name] = append(shown[name], fmt.Sprintf("(%d bytes: dlq show --data)", len(v)))
		}
	}
	return shown
}

// unreadable is a stored message that is no letter.
type unreadable struct {
	Service  subject.Service `json:"service"`
	Sequence uint64          `json:"sequence"`
	Error    string          `json:"error"`
}

// dlqListResult is the JSON of dlq list.
type dlqListResult struct {
	Letters    []listed          `json:"letters"`    // oldest first
	States     map[dlq.State]int `json:"states"`     // how many in each state, those left out included
	Omitted    int               `json:"omitted"`    // older ones that --limit left out
	Unreadable []unreadable      `json:"unreadable"` // stored messages that are no letters
}

func (v *dlqList) run(ctx context.Context, c *call) error {
	r := dlqListResult{Letters: []listed{}, States: map[dlq.State]int{}, Unreadable: []unreadable{}}
	err := c.withShelves(ctx, &v.owner, func(shelves []shelf) error {
		if err := v.complete(ctx, shelves); err != nil {
			return err
		}
		for _, s := range shelves {
			if err := v.read(ctx, s, &r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(r.Letters, func(a, b listed) int { return a.StoredAt.Compare(b.StoredAt) })
	r.trim(v.limit)
	return c.print(r, r.text)
}

// read adds the letters of one service.
func (v *dlqList) read(ctx context.Context, s shelf, r *dlqListResult) error {
	var own dlqListResult
	for l, err := range s.List(ctx, v.filter) {
		if e, malformed := errors.AsType[*dlq.MalformedError](err); malformed {
			own.Unreadable = append(own.Unreadable, unreadable{s.service, e.Sequence, e.Err.Error()})
			continue
		}
		if err != nil {
			return err
		}
		r.States[l.State]++
		l.OriginalHeader = withheld(l.OriginalHeader)
		own.Letters = append(own.Letters, listed{s.service, l})
		if len(own.Letters) > 2*v.limit {
			own.trim(v.limit) // now and then, so that memory stays bounded
		}
	}
	r.Letters = append(r.Letters, own.Letters...)
	r.Unreadable = append(r.Unreadable, own.Unreadable...)
	r.Omitted += own.Omitted
	return nil
}

// trim keeps the newest limit letters; all for 0.
func (r *dlqListResult) trim(limit int) {
	if over := len(r.Letters) - limit; limit > 0 && over > 0 {
		r.Letters = append([]listed{}, r.Letters[over:]...)
		r.Omitted += over
	}
}

// causeWidth keeps the cause on one line beside the rest.
const causeWidth = 100

func (r dlqListResult) text(p *page) {
	if len(r.Letters) == 0 {
		p.line("no dead letter matches")
	} else {
		p.letters(r.Letters)
		p.gap()
		p.line("%s; next: dvmsg dlq show %s", countStates(len(r.Letters)+r.Omitted, r.States), r.short()(r.Letters[len(r.Letters)-1].ID))
	}
	if r.Omitted > 0 {
		p.line("%d older ones are left out; --limit 0 lists all", r.Omitted)
	}
	for _, u := range r.Unreadable {
		p.line("warning: message %d in the dead letters of %s is no letter: %s", u.Sequence, u.Service, u.Error)
	}
}

// countStates says how many letters there are, and in which states if not in one.
func countStates(n int, in map[dlq.State]int) string {
	text := count(n, "letter")
	if len(in) < 2 {
		return text
	}
	return text + ": " + inStates(in)
}

// inStates lists the states in the order of a letter's life.
func inStates(in map[dlq.State]int) string {
	var parts []string
	for _, s := range states() {
		if n := in[dlq.State(s)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(parts, ", ")
}

func (p *page) letters(all []listed) {
	short := dlqListResult{Letters: all}.short()
	rows := make([][]string, 0, len(all))
	for _, l := range all {
		rows = append(rows, []string{
			short(l.ID), age(max(0, p.now.Sub(l.StoredAt))), stamp(l.StoredAt), string(l.State), string(l.Class),
			l.Type, l.Durable, strconv.Itoa(l.Attempts), l.CorrelationID, shorten(clean(l.Error), causeWidth),
		})
	}
	p.table([]string{"LETTER", "AGE", "FAILED AT", "STATE", "CLASS", "TYPE", "DURABLE", "ATTEMPTS", "CORRELATION", "CAUSE"}, rows)
}

// short returns a function that cuts ids as far as they stay different.
func (r dlqListResult) short() func(string) string {
	const least = 10
	n := least
	for seen := map[string]string{}; n < len(idPrefix)+allDigits; n++ {
		clear(seen)
		clash := false
		for _, l := range r.Letters {
			cut := l.ID[:min(n, len(l.ID))]
			clash = clash || seen[cut] != "" && seen[cut] != l.ID
			seen[cut] = l.ID
		}
		if !clash {
			break
		}
	}
	return func(id string) string { return id[:min(n, len(id))] }
}
