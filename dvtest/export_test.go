package dvtest

import "testing"

// ClosePool is tested with a pool that is never given back.
var ClosePool = closePool

// ConformIn runs one scenario of Conform.
func ConformIn(tb testing.TB, c Conformance, name string) {
	messages, want := c.baseline(tb)
	for _, s := range scenarios() {
		if s.name == name {
			s.check(tb, &c, messages, want)
			return
		}
	}
	tb.Fatalf("no scenario is called %q", name)
}

// ConformBaseline is what Conform begins with.
func ConformBaseline(tb testing.TB, c Conformance) { c.baseline(tb) }
