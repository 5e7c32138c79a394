package subject_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/subject"
)

const benchText = "dv.maskin.evt.server.provisioned"

// Not parallel, since testing.AllocsPerRun counts for the whole process.
func TestTheHotPathDoesNotAllocate(t *testing.T) {
	s := subject.Must(subject.Parse(benchText))
	f, g := subject.EventsOf(subject.Maskin), filterOf(t, "dv.*.evt.*.provisioned")
	for name, work := range map[string]func(){
		"Parse":             func() { _, _ = subject.Parse(benchText) },
		"Parse dead letter": func() { _, _ = subject.Parse("dv.nett.dlq." + benchText) },
		"accessors":         func() { _, _, _ = s.Entity(), s.Verb(), s.Service() },
		"Matches":           func() { _ = f.Matches(s) && g.Matches(s) },
		"MatchesString":     func() { _ = f.MatchesString(benchText) },
		"Overlaps":          func() { _ = f.Overlaps(g) },
		"Covers":            func() { _ = f.Covers(g) },
		"ParseFilter":       func() { _, _ = subject.ParseFilter("dv.*.evt.*.provisioned") },
	} {
		require.Zero(t, testing.AllocsPerRun(100, work), name)
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := subject.Parse(benchText); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseDeadLetter(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := subject.Parse("dv.nett.dlq." + benchText); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvt(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := subject.Evt(subject.Maskin, "server", "provisioned"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	s := subject.Must(subject.Parse(benchText))
	f := filterOf(b, "dv.maskin.evt.*.provisioned")
	b.ReportAllocs()
	for b.Loop() {
		if !f.Matches(s) {
			b.Fatal("no match")
		}
	}
}

func BenchmarkMatchesString(b *testing.B) {
	f := filterOf(b, "dv.maskin.evt.*.provisioned")
	b.ReportAllocs()
	for b.Loop() {
		if !f.MatchesString(benchText) {
			b.Fatal("no match")
		}
	}
}
