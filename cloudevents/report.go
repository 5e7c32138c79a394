package cloudevents

import "strings"

// Report lists what a translation could not carry over as it was, in the order in
// which it stood. An empty report means that the way back gives the same.
type Report []Note

// Note is one line of a [Report].
type Note struct {
	// Name is the field or the attribute, as the source of the translation names
	// it.
	Name string
	// Outcome says what was done.
	Outcome Outcome
	// Reason says why. It never holds the value.
	Reason string
}

// Outcome is what a translation did with something that has no exact counterpart.
type Outcome string

// The outcomes.
const (
	// Dropped: it is not in the result.
	Dropped Outcome = "dropped"
	// Assumed: it was absent, and the result has a value by a documented rule.
	Assumed Outcome = "assumed"
	// Changed: the result has another value of the same meaning, or less precise.
	Changed Outcome = "changed"
)

// Dropped returns the names that are not in the result.
func (r Report) Dropped() []string {
	var names []string
	for _, note := range r {
		if note.Outcome == Dropped {
			names = append(names, note.Name)
		}
	}
	return names
}

// String returns "name dropped: reason; …" for a log, "" for an empty report.
func (r Report) String() string {
	var b strings.Builder
	for i, note := range r {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(clip(note.Name) + " " + string(note.Outcome) + ": " + note.Reason)
	}
	return b.String()
}

// add appends a note.
func (r *Report) add(name string, outcome Outcome, reason string) {
	*r = append(*r, Note{name, outcome, reason})
}
