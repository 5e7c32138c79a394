package subject_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
)

// seeds are the examples and their near misses.
func seeds() []string {
	var list []string
	for _, sample := range samples() {
		list = append(list, sample.text, sample.text+".", sample.text+".v1", strings.ToUpper(sample.text))
	}
	return append(list, "", "dv", "dv.", "dv.>", "dv.*.dlq.>", "dv.maskin.evt.*.made", "dv.maskin.evt.>",
		"dv.task.evt.*", "dv.maskin.dlq.dv.maskin.dlq.x", "dv.maskin.dlq.a..b", "dv.rpc.task.x", "dv.\x00.>",
		"dv.maskin.cmd.\xff", "dv.maskin.evt.a*.>", ">", "*", "dv.*.*")
}

// familyFilter returns the filter that must match every subject like s.
func familyFilter(s subject.Subject) subject.Filter {
	switch s.Family() {
	case subject.FamilyCommand:
		return subject.CommandsOf(s.Service())
	case subject.FamilyEvent:
		return subject.EventsOf(s.Service())
	case subject.FamilyTaskEvent:
		return subject.TaskEvents()
	case subject.FamilyRPC:
		return subject.RPCOf(s.Service())
	case subject.FamilyDeadLetter:
		return subject.DeadLettersOf(s.Service())
	case subject.FamilyDeadLetterMark:
		return subject.MarksOf(s.Service())
	case subject.FamilyReplay:
		return subject.ReplaysOf(s.Service())
	case subject.FamilySiteCommand:
		return subject.MustFilter(subject.CommandsAt(s.Site(), s.Service()))
	}
	return subject.Filter{}
}

// rebuild takes s apart and puts it together again.
func rebuild(s subject.Subject) (subject.Subject, error) {
	switch s.Family() {
	case subject.FamilyCommand:
		return subject.Cmd(s.Service(), s.Action())
	case subject.FamilyEvent:
		return subject.Evt(s.Service(), s.Entity(), s.Verb())
	case subject.FamilyTaskEvent:
		return subject.TaskEvt(s.Verb())
	case subject.FamilyRPC:
		return subject.RPC(s.Service(), s.Operation())
	case subject.FamilyDeadLetter:
		return subject.DLQ(s.Service(), s.Original())
	case subject.FamilyDeadLetterMark:
		return subject.DLQMark(s.Service(), s.LetterID())
	case subject.FamilySiteCommand:
		return subject.CmdAt(s.Site(), s.Service(), s.Action())
	default:
		return subject.Replay(s.Service(), s.Durable())
	}
}

// serverConcrete is what a subject is to the server when it is no pattern. Its
// IsValidLiteralSubject alone looks at tokens only and lets white space pass.
func serverConcrete(text string) bool {
	return server.IsValidSubject(text) && server.IsValidLiteralSubject(text)
}

// What Parse accepts has the promises of the package documentation: it round
// trips, the builders make it again, its family's filter matches it, the server
// can store it, and it can die (once).
func FuzzParse(f *testing.F) {
	for _, text := range seeds() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := subject.Parse(text)
		if err != nil {
			require.True(t, s.IsZero())
			require.NotEmpty(t, err.Error())
			return
		}
		require.Equal(t, text, s.String())
		again, err := rebuild(s)
		require.NoError(t, err)
		require.True(t, again == s)
		require.True(t, familyFilter(s).Matches(s), "the filter of the family matches %q", text)
		require.True(t, subject.Exactly(s).Matches(s))
		exact, err := subject.ParseFilter(text)
		require.NoError(t, err, "a concrete subject is a filter too")
		require.Equal(t, subject.Exactly(s), exact)
		require.True(t, serverConcrete(text), "the server takes %q", text)
		_, err = subject.DLQ(subject.Nett, text)
		require.Equal(t, s.Family() < subject.FamilyDeadLetter || s.Family() == subject.FamilySiteCommand, err == nil, "%v", err)
	})
}

// DLQ accepts exactly what the server calls a literal subject, but for length
// and for its own machinery. Were it stricter, one foreign message could block a
// consumer for ever.
func FuzzDeadLetterTakesEveryLiteralSubject(f *testing.F) {
	for _, text := range seeds() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, original string) {
		s, err := subject.DLQ(subject.Maskin, original)
		if err == nil {
			require.True(t, serverConcrete(original))
			require.Equal(t, original, s.Original())
			back, err := subject.Parse(s.String())
			require.NoError(t, err)
			require.True(t, back == s)
			return
		}
		own := false
		for _, family := range []string{"dv.*.dlq.>", "dv.*.dlqmark.>", "dv.*.replay.>"} {
			own = own || filterOf(t, family).MatchesString(original)
		}
		require.True(t, own || len(original) > subject.MaxOriginal || !serverConcrete(original),
			"refused %q: %v", original, err)
	})
}

// naiveMatch is the definition of matching, without regard for speed.
func naiveMatch(pattern, text string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(text, ".")
	if p[len(p)-1] == ">" {
		if len(s) < len(p) {
			return false
		}
		p, s = p[:len(p)-1], s[:len(p)-1]
	}
	if len(p) != len(s) {
		return false
	}
	for i := range p {
		if p[i] != "*" && p[i] != s[i] {
			return false
		}
	}
	return true
}

// mixed reports whether a token of text holds a wildcard beside something else.
// The server takes such a token for itself when it routes, but its two functions
// below do not agree (they look at the first byte only), so it is left out of
// the comparison.
func mixed(text string) bool {
	for token := range strings.SplitSeq(text, ".") {
		if len(token) > 1 && strings.ContainsAny(token, "*>") {
			return true
		}
	}
	return false
}

// A filter agrees with a naive definition and with the server, whatever the text.
func FuzzParseFilter(f *testing.F) {
	texts := seeds()
	for i, text := range texts {
		f.Add(text, texts[(i*7+3)%len(texts)], texts[(i*5+1)%len(texts)])
		f.Add("dv.maskin.evt.>", text, "dv.*.evt.*.*")
	}
	f.Fuzz(func(t *testing.T, one, two, text string) {
		a, err := subject.ParseFilter(one)
		if err != nil {
			require.True(t, a.IsZero())
			return
		}
		require.Equal(t, one, a.String())
		require.True(t, server.IsValidSubject(one), "the server takes %q", one)
		require.Equal(t, serverConcrete(text) && naiveMatch(one, text), a.MatchesString(text), "%q %q", one, text)
		if s, err := subject.Parse(text); err == nil {
			require.Equal(t, a.MatchesString(text), a.Matches(s))
		}
		require.True(t, a.Covers(a) && a.Overlaps(a))
		b, err := subject.ParseFilter(two)
		if err != nil {
			return
		}
		require.Equal(t, a.Overlaps(b), b.Overlaps(a), "Overlaps is symmetric: %q %q", a, b)
		if !mixed(one) && !mixed(two) {
			require.Equal(t, server.SubjectsCollide(one, two), a.Overlaps(b), "%q %q", a, b)
			require.Equal(t, server.SubjectMatchesFilter(two, one), a.Covers(b), "%q %q", a, b)
		}
		if a.Covers(b) {
			require.True(t, a.Overlaps(b), "Covers implies Overlaps: %q %q", a, b)
			require.False(t, b.MatchesString(text) && !a.MatchesString(text))
			require.Equal(t, a == b, b.Covers(a), "filters that cover each other are equal: %q %q", a, b)
		}
		if a.MatchesString(text) && b.MatchesString(text) {
			require.True(t, a.Overlaps(b), "both match %q: %q %q", text, a, b)
		}
	})
}

// Every pair of short patterns over a small alphabet, against every short
// subject: with so few tokens the set of subjects is complete, so Overlaps and
// Covers are compared with their definitions and not with another algorithm.
func TestOverlapsAndCoversEqualTheirDefinitionsExhaustively(t *testing.T) {
	t.Parallel()
	subjects := sequences([]string{"a", "b", "c"}, 4)
	var filters []subject.Filter
	for _, text := range append(sequences([]string{"a", "b", "*"}, 3), "dv.>", "dv.a.>", "dv.*.>", "dv.a.*.>", "dv.*.b.>", "dv.*.*.>") {
		filters = append(filters, filterOf(t, text))
	}
	for _, f := range filters {
		for _, g := range filters {
			overlaps, covers := false, true
			for _, s := range subjects {
				inF, inG := f.MatchesString(s), g.MatchesString(s)
				require.Equal(t, naiveMatch(f.String(), s), inF)
				overlaps = overlaps || inF && inG
				covers = covers && (inF || !inG)
			}
			require.Equal(t, overlaps, f.Overlaps(g), "%s %s", f, g)
			require.Equal(t, covers, f.Covers(g), "%s %s", f, g)
		}
	}
}

// sequences returns dv followed by every sequence of up to n of the tokens.
func sequences(tokens []string, n int) []string {
	all := []string{"dv"}
	for from := 0; n > 0; n-- {
		end := len(all)
		for _, head := range all[from:end] {
			for _, token := range tokens {
				all = append(all, head+"."+token)
			}
		}
		from = end
	}
	return all
}
