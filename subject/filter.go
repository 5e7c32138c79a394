package subject

import (
	"fmt"
	"strings"
)

// Filter is a pattern over subjects: what streams hold and consumers ask for
// (requirement S4). In it, * stands for one token and > for one or more at the
// end, as in NATS. Nobody can publish to a Filter, since it is no [Subject]. A
// Filter without wildcards matches one subject. The zero value matches nothing.
//
// A Filter is a plain immutable value: copy it, compare it with ==, use it as a
// map key, share it between goroutines. == compares the text; two filters that
// cover each other are equal.
type Filter struct{ text string }

// CommandsOf matches all commands to service s: dv.<service>.cmd.*. Like all
// filters that cannot fail otherwise, it is zero for an invalid service.
func CommandsOf(s Service) Filter { return all(FamilyCommand, s) }

// CommandsAt matches all commands to service s that wait for a site:
// dv.xdc.<site>.<service>.cmd.*.
func CommandsAt(site string, s Service) (Filter, error) {
	if _, err := CmdAt(site, s, "any"); err != nil {
		return Filter{}, err
	}
	return Filter{siteHead(site, s) + "*"}, nil
}

// EventsOf matches all events of service s: dv.<service>.evt.>.
func EventsOf(s Service) Filter { return all(FamilyEvent, s) }

// TaskEvents matches all task events: dv.task.evt.*.
func TaskEvents() Filter { return Filter{FamilyTaskEvent.head(0) + "*"} }

// RPCOf matches all calls to service s: dv.rpc.<service>.*.
func RPCOf(s Service) Filter { return all(FamilyRPC, s) }

// DeadLettersOf matches all dead letters of service s: dv.<service>.dlq.>.
func DeadLettersOf(s Service) Filter { return all(FamilyDeadLetter, s) }

// MarksOf matches the marks of all dead letters of service s:
// dv.<service>.dlqmark.*.
func MarksOf(s Service) Filter { return all(FamilyDeadLetterMark, s) }

// ReplaysOf matches the replays to all durables of service s:
// dv.<service>.replay.*.
func ReplaysOf(s Service) Filter { return all(FamilyReplay, s) }

// AllDeadLetters matches the dead letters of all services: dv.*.dlq.>. It is
// for operators; a stream holds those of one service.
func AllDeadLetters() Filter { return Filter{"dv.*.dlq.>"} }

// EntityEvents matches all events of one entity of service s:
// dv.<service>.evt.<entity>.*.
func EntityEvents(s Service, entity string) (Filter, error) {
	if err := check(FamilyEvent, s, []string{entity}); err != nil {
		return Filter{}, err
	}
	return Filter{FamilyEvent.head(s) + entity + ".*"}, nil
}

// VerbEvents matches one verb across all entities of service s:
// dv.<service>.evt.*.<verb>.
func VerbEvents(s Service, verb string) (Filter, error) {
	if err := check(FamilyEvent, s, []string{"any", verb}); err != nil {
		return Filter{}, err
	}
	return Filter{FamilyEvent.head(s) + "*." + verb}, nil
}

// Exactly matches s and nothing else. It is zero for the zero Subject.
func Exactly(s Subject) Filter { return Filter{s.text} }

// all returns the filter that matches every subject of family f and service s.
func all(f Family, s Service) Filter {
	switch {
	case !s.Valid():
		return Filter{}
	case f == FamilyEvent || f == FamilyDeadLetter:
		return Filter{f.head(s) + ">"}
	}
	return Filter{f.head(s) + "*"}
}

// ParseFilter reads a filter from a configuration, a contract file or the
// server. It accepts every filter that NATS does and that begins with the token
// dv: * and > as whole tokens, > as the last one. Other tokens are not held to
// the naming rules, since a filter is also what finds subjects that break them;
// only a wildcard character inside a token, as in dv.maskin.evt.ser*, is refused
// outside a dead letter's original, because NATS would compare it as text and
// match nothing. The length is at most MaxOriginal + MaxLength bytes.
//
// It never panics; the error is an [*Error].
func ParseFilter(text string) (Filter, error) {
	if fault := filterFault(text); fault != "" {
		return Filter{}, newError("filter", text, fault)
	}
	return Filter{text}, nil
}

// MustFilter returns f, and panics if err is not nil. It is for package-level
// values whose parts are literals.
func MustFilter(f Filter, err error) Filter {
	if err != nil {
		panic(err)
	}
	return f
}

// filterFault returns what is wrong with the text of a filter, or "".
func filterFault(text string) string {
	if len(text) > maxText {
		return fmt.Sprintf("is %d bytes long: shorten it to at most %d", len(text), maxText)
	}
	if i := strings.IndexAny(text, forbidden); i >= 0 {
		return fmt.Sprintf("holds %q, which no NATS filter can: remove it", text[i])
	}
	first, rest, _ := strings.Cut(text, ".")
	if first != root {
		return "does not begin with the token dv: prefix it, as in dv.maskin.evt.>"
	}
	// Behind the token dlq stands a foreign subject, where NATS takes a wildcard
	// character inside a token for itself. Anywhere else it is a mistake that the
	// server would not report: the filter would just never match.
	_, behind, _ := strings.Cut(rest, ".")
	return patternFault(text, strings.HasPrefix(behind, "dlq."))
}

// patternFault checks the tokens of a filter.
func patternFault(text string, foreign bool) string {
	var last string
	for token := range strings.SplitSeq(text, ".") {
		switch {
		case last == ">":
			return "goes on after >: let > be the last token, or write * for one token"
		case token == "":
			return "has an empty token: remove the leading, trailing or double dot"
		case len(token) > 1 && !foreign && strings.ContainsAny(token, "*>"):
			return fmt.Sprintf("token %q mixes a wildcard with text: * and > stand for whole tokens", shorten(token))
		}
		last = token
	}
	return ""
}

// String returns the filter as NATS takes it, and "" for the zero value.
func (f Filter) String() string { return f.text }

// IsZero reports whether f is the zero value, which matches nothing.
func (f Filter) IsZero() bool { return f.text == "" }

// Matches reports whether f matches s. The zero Subject is matched by nothing.
// It allocates nothing.
func (f Filter) Matches(s Subject) bool {
	return !s.IsZero() && match(f.text, s.text)
}

// MatchesString is Matches for a text that may break the naming rules. Text that
// is no concrete NATS subject, such as another filter, is matched by nothing.
func (f Filter) MatchesString(text string) bool {
	return concreteFault(text) == "" && match(f.text, text)
}

// match walks a pattern and a concrete subject in step. The subject is not empty;
// an empty pattern, that of the zero Filter, is one empty token, which no subject
// has.
func match(pattern, text string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, ".")
		if p == ">" {
			return true
		}
		t, trest, tmore := strings.Cut(text, ".")
		if p != "*" && p != t {
			return false
		}
		if !pmore || !tmore {
			return pmore == tmore
		}
		pattern, text = prest, trest
	}
}

// Overlaps reports whether some concrete subject is matched by both filters:
// what two streams of one account, and two durables of one command stream, must
// not do. It is symmetric, and false if either is zero.
func (f Filter) Overlaps(g Filter) bool {
	if f.IsZero() || g.IsZero() {
		return false
	}
	a, b := f.text, g.text
	for {
		p, prest, pmore := strings.Cut(a, ".")
		q, qrest, qmore := strings.Cut(b, ".")
		if p == ">" || q == ">" {
			return true
		}
		if p != q && p != "*" && q != "*" {
			return false
		}
		if !pmore || !qmore {
			return pmore == qmore
		}
		a, b = prest, qrest
	}
}

// Covers reports whether f matches everything that g matches: what a stream must
// do for the filter of its consumer. It is false if either is zero.
func (f Filter) Covers(g Filter) bool {
	if f.IsZero() || g.IsZero() {
		return false
	}
	a, b := f.text, g.text
	for {
		p, prest, pmore := strings.Cut(a, ".")
		q, qrest, qmore := strings.Cut(b, ".")
		switch {
		case p == ">":
			return true
		case q == ">", p != "*" && p != q:
			return false
		case !pmore || !qmore:
			return pmore == qmore
		}
		a, b = prest, qrest
	}
}

// MarshalText returns the text of the filter. The zero value is an error, since
// a filter that matches nothing is a mistake wherever it is stored.
func (f Filter) MarshalText() ([]byte, error) {
	if f.IsZero() {
		return nil, newError("filter", "", "is not set: build one with EventsOf, CommandsOf or ParseFilter")
	}
	return []byte(f.text), nil
}

// UnmarshalText is [ParseFilter] for encoding/json and its relatives. f is
// unchanged when it fails.
func (f *Filter) UnmarshalText(text []byte) error {
	parsed, err := ParseFilter(string(text))
	if err != nil {
		return err
	}
	*f = parsed
	return nil
}
