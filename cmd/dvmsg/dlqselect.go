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
)

// selection holds the flags that say which letters are meant; all commands about
// several letters have the same.
type selection struct {
	owner        owner
	filter       dlq.Filter
	class, state string
	since, until string
}

func (s *selection) register(fs *flag.FlagSet, byDefault string) {
	s.owner.register(fs)
	f := &s.filter
	fs.StringVar(&f.CorrelationID, "correlation", "", "only letters of the workflow with this correlation `ID`")
	fs.StringVar(&f.TenantID, "tenant", "", "only letters of this `TENANT`")
	fs.StringVar(&f.Resource, "resource", "", "only letters about this `RESOURCE`, the envelope's subject")
	fs.StringVar(&f.Type, "type", "", "only this message `TYPE`, such as maskin.server.provisioned")
	fs.StringVar(&f.Durable, "durable", "", "only letters of this `DURABLE`")
	fs.StringVar(&f.Fingerprint, "fingerprint", "", "only letters that failed alike: the `DIGITS` that dlq groups prints, at least 8")
	fs.StringVar(&f.Batch, "batch", "", "only letters on which that `BATCH` acted last, whatever became of them")
	fs.StringVar(&s.class, "class", "", "only this `CLASS`: "+strings.Join(classes(), ", "))
	fs.StringVar(&s.state, "state", "", "only this `STATE`: "+strings.Join(states(), ", ")+"; default: "+byDefault)
	fs.StringVar(&s.since, "since", "", "only what failed since this `TIME`: an age (90m, 2h, 3d) or 2006-01-02T15:04:05Z")
	fs.StringVar(&s.until, "until", "", "only what failed before this `TIME`")
}

func classes() (all []string) {
	for _, c := range []envelope.Class{envelope.ClassPoison, envelope.ClassExhausted, envelope.ClassDecode, envelope.ClassSecurity, envelope.ClassCrash} {
		all = append(all, string(c))
	}
	return all
}

func states() (all []string) {
	for _, s := range []dlq.State{dlq.StateOpen, dlq.StateClaimed, dlq.StateReplayed, dlq.StateResolved, dlq.StateDiscarded, dlq.StateRemoved, dlq.StateUnknown, dlq.StateAny} {
		all = append(all, string(s))
	}
	return all
}

// Bounds of what is accepted as a fingerprint, in digits. Fewer could mean
// another group than the one that was looked at.
const (
	leastFingerprint = 8
	allFingerprint   = 64
)

func (s *selection) check(c *call) {
	s.owner.check(c)
	oneOf(c, "--class", s.class, classes())
	oneOf(c, "--state", s.state, states())
	s.filter.Class, s.filter.State = envelope.Class(s.class), dlq.State(s.state)
	s.filter.Since = checkTime(c, "--since", s.since)
	s.filter.Until = checkTime(c, "--until", s.until)
	if !s.filter.Until.IsZero() && !s.filter.Since.Before(s.filter.Until) {
		c.fault("--until is not after --since: nothing can lie between them")
	}
	if f := s.filter.Fingerprint; f != "" && (len(f) < leastFingerprint || len(f) > allFingerprint || strings.Trim(f, "0123456789abcdef") != "") {
		c.fault("--fingerprint: %q is none; it is up to %d hex digits, at least %d, as dlq groups prints it", f, allFingerprint, leastFingerprint)
	}
}

// says reports whether a flag says which letters are meant.
func (s *selection) says() bool {
	f := s.filter
	return f.CorrelationID+f.TenantID+f.Resource+f.Type+f.Durable+f.Fingerprint+f.Batch+s.class+s.state+s.since+s.until != ""
}

// oneOf adds a fault where text is given and not one of the accepted ones.
func oneOf(c *call, name, text string, accepted []string) {
	if text != "" && !slices.Contains(accepted, text) {
		c.fault("%s: %q is none of %s", name, text, strings.Join(accepted, ", "))
	}
}

// longestList is the largest --limit of what is read from a table or a stream at once.
const longestList = 10_000

func checkLimit(c *call, limit int) {
	if limit < 1 || limit > longestList {
		c.fault("--limit: %d is out of range; use 1 to %d", limit, longestList)
	}
}

func checkTime(c *call, name, text string) time.Time {
	t, err := parseSince(text, c.now())
	if err != nil {
		c.fault("%s: %v", name, err)
	}
	return t
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
	if d, ok := parseAge(text); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither an age such as 90m, 2h or 3d nor a time such as 2006-01-02T15:04:05Z", text)
}

// parseAge reads an age, in days too.
func parseAge(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * day, err == nil && n > 0
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}

// complete replaces the beginning of a fingerprint by the one that begins so.
func (s *selection) complete(ctx context.Context, shelves []shelf) error {
	short := s.filter.Fingerprint
	if short == "" || len(short) == allFingerprint {
		return nil
	}
	var found []string
	for _, sh := range shelves {
		groups, err := sh.Groups(ctx, dlq.Filter{State: dlq.StateAny})
		if err != nil {
			return err
		}
		for _, g := range groups {
			if strings.HasPrefix(g.Fingerprint, short) && !slices.Contains(found, g.Fingerprint) {
				found = append(found, g.Fingerprint)
			}
		}
	}
	switch len(found) {
	case 0:
		return fmt.Errorf("no letter has a fingerprint that begins with %s. See: dvmsg dlq groups --state any", short)
	case 1:
		s.filter.Fingerprint = found[0]
		return nil
	}
	return fmt.Errorf("%s is the beginning of several fingerprints; give more digits: %s", short, strings.Join(found, ", "))
}

// named is the letters that arguments name, on one shelf.
type named struct {
	on  shelf
	ids []string
}

// resolve finds the letters whose ids begin so, in one reading of each shelf. One
// that is none, or several, is an error: acting on the wrong letter is worse than
// asking again.
func resolve(ctx context.Context, shelves []shelf, ids []letterID) ([]named, error) {
	all := make([]named, len(shelves))
	found := map[letterID][]string{}
	for i, s := range shelves {
		all[i].on = s
		for l, err := range s.List(ctx, dlq.Filter{State: dlq.StateAny}) {
			if _, malformed := errors.AsType[*dlq.MalformedError](err); malformed {
				continue // no id that could be meant
			}
			if err != nil {
				return nil, err
			}
			for _, id := range ids {
				if !strings.HasPrefix(l.ID, string(id)) {
					continue
				}
				if !slices.Contains(all[i].ids, l.ID) {
					all[i].ids = append(all[i].ids, l.ID)
				}
				found[id] = append(found[id], l.ID)
			}
		}
	}
	var faults []error
	for _, id := range ids {
		faults = append(faults, id.check(found[id], shelves))
	}
	return slices.DeleteFunc(all, func(n named) bool { return len(n.ids) == 0 }), errors.Join(faults...)
}

// check returns why the letters found are not the one that is meant.
func (id letterID) check(found []string, shelves []shelf) error {
	const shown = 5
	switch len(found) {
	case 0:
		return id.notFound(shelves)
	case 1:
		return nil
	}
	return fmt.Errorf("%s is the beginning of several letters; give more digits: %s", id, strings.Join(found[:min(shown, len(found))], ", "))
}
