package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// defaultLimit keeps a listing readable, and its memory small.
const defaultLimit = 1000

type dlqList struct {
	owner        owner
	filter       dlq.Filter
	class, state string
	since        string
	limit        int
}

func newDLQList(fs *flag.FlagSet) verb {
	v := &dlqList{}
	v.owner.register(fs)
	fs.StringVar(&v.filter.CorrelationID, "correlation", "", "only letters of the workflow with this correlation `ID`")
	fs.StringVar(&v.filter.TenantID, "tenant", "", "only letters of this `TENANT`")
	fs.StringVar(&v.filter.Type, "type", "", "only this message `TYPE`, such as maskin.server.provisioned")
	fs.StringVar(&v.filter.Durable, "durable", "", "only letters of this `DURABLE`")
	fs.StringVar(&v.filter.Fingerprint, "fingerprint", "", "only letters that failed alike: the 64 digits that dlq show prints")
	fs.StringVar(&v.class, "class", "", "only this `CLASS`: "+strings.Join(classes(), ", "))
	fs.StringVar(&v.state, "state", "", "only this `STATE`: "+strings.Join(states(), ", ")+"; default: all that are not closed")
	fs.StringVar(&v.since, "since", "", "only what failed since this `TIME`: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z")
	fs.IntVar(&v.limit, "limit", defaultLimit, "at most so many letters, the newest `N`; 0: all")
	return v
}

func classes() (all []string) {
	for _, c := range []envelope.Class{envelope.ClassPoison, envelope.ClassExhausted, envelope.ClassDecode, envelope.ClassSecurity, envelope.ClassCrash} {
		all = append(all, string(c))
	}
	return all
}

func states() (all []string) {
	for _, s := range []dlq.State{dlq.StateOpen, dlq.StateClaimed, dlq.StateReplayed, dlq.StateResolved, dlq.StateDiscarded, dlq.StateUnknown, dlq.StateAny} {
		all = append(all, string(s))
	}
	return all
}

func (v *dlqList) check(c *call) {
	v.owner.check(c)
	oneOf(c, "--class", v.class, classes())
	oneOf(c, "--state", v.state, states())
	v.filter.Class, v.filter.State = envelope.Class(v.class), dlq.State(v.state)
	since, err := parseSince(v.since, c.now())
	if err != nil {
		c.fault("--since: %v", err)
	}
	v.filter.Since = since
	if v.limit < 0 {
		c.fault("--limit: %d is negative; 0 means all", v.limit)
	}
}

// oneOf adds a fault where text is given and not one of the accepted ones.
func oneOf(c *call, name, text string, accepted []string) {
	if text != "" && !slices.Contains(accepted, text) {
		c.fault("%s: %q is none of %s", name, text, strings.Join(accepted, ", "))
	}
}

// parseSince reads an age or a time; "" is the zero time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 {
			return now.Add(-time.Duration(n) * day), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither an age such as 90m, 2h or 3d nor a time such as 2006-01-02T15:04:05Z", text)
}

// listed is a letter with its service, in JSON.
type listed struct {
	Service subject.Service `json:"service"`
	dlq.Letter
}

// unreadable is a stored message that is no letter.
type unreadable struct {
	Service  subject.Service `json:"service"`
	Sequence uint64          `json:"sequence"`
	Error    string          `json:"error"`
}

// dlqListResult is the JSON of dlq list.
type dlqListResult struct {
	Letters    []listed     `json:"letters"`    // oldest first
	Omitted    int          `json:"omitted"`    // older ones that --limit left out
	Unreadable []unreadable `json:"unreadable"` // stored messages that are no letters
}

func (v *dlqList) run(ctx context.Context, c *call) error {
	r := dlqListResult{Letters: []listed{}, Unreadable: []unreadable{}}
	err := c.withShelves(ctx, &v.owner, func(shelves []shelf) error {
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
		p.line("%s; next: dvmsg dlq show %s", count(len(r.Letters), "letter"), r.short()(r.Letters[len(r.Letters)-1].ID))
	}
	if r.Omitted > 0 {
		p.line("%d older ones are left out; --limit 0 lists all", r.Omitted)
	}
	for _, u := range r.Unreadable {
		p.line("warning: message %d in the dead letters of %s is no letter: %s", u.Sequence, u.Service, u.Error)
	}
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
