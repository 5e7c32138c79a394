package dlq

import (
	"errors"
	"slices"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// Filter says which letters are meant, wherever several are: those that satisfy
// every field that is set. The zero value means what an operator has to look at:
// every letter that is not closed, so open, claimed, replayed and unknown ones.
// What changes letters refuses the zero value; say [StateOpen] to mean every open
// one.
type Filter struct {
	// IDs are the letters themselves, complete ids in any order. Default nil:
	// any. An empty list that is not nil is an error, so that a selection of
	// nothing never becomes everything.
	IDs []string

	// CorrelationID, TenantID, Type, Durable, Fingerprint and Resource are
	// compared as a whole. Resource is the envelope's subject. Default: any.
	CorrelationID string
	TenantID      string
	Type          string
	Durable       string
	Fingerprint   string
	Resource      string

	// Batch is the [Report.Batch] of one call that acted on many letters; those
	// are meant on which nobody acted since, whatever became of them.
	// Default: any.
	Batch string

	// Class is the class of the last failure. Default: any.
	Class envelope.Class

	// State is one state, or StateAny for all letters. Default: every state that
	// is not closed; with IDs or Batch, any.
	State State

	// Since and Until bound when the last failure was stored, by the server's
	// clock: not before Since, and before Until. Default: no bound.
	Since, Until time.Time
}

// validate returns every fault of f at once.
func (f Filter) validate() error {
	var faults []error
	if f.IDs != nil && len(f.IDs) == 0 {
		faults = append(faults, &FieldError{"Filter.IDs", "is empty: name letters, or leave it nil to mean any"})
	}
	if slices.ContainsFunc(f.IDs, func(id string) bool { return !isLetterID(id) }) {
		faults = append(faults, &FieldError{"Filter.IDs", "holds what is no letter id: l and 40 lower-case hex digits"})
	}
	if !f.State.filterable() {
		faults = append(faults, &FieldError{"Filter.State", "is no state: use a State constant, or StateAny for all"})
	}
	switch f.Class {
	case "", envelope.ClassPoison, envelope.ClassExhausted, envelope.ClassDecode,
		envelope.ClassSecurity, envelope.ClassCrash:
	default:
		faults = append(faults, &FieldError{"Filter.Class", "is no class: use a Class constant of package envelope"})
	}
	if !f.Until.IsZero() && !f.Since.Before(f.Until) {
		faults = append(faults, &FieldError{"Filter.Until", "is not after Since: nothing can lie between them"})
	}
	return errors.Join(faults...)
}

// isZero reports whether f says nothing at all.
func (f Filter) isZero() bool {
	texts := f.CorrelationID + f.TenantID + f.Type + f.Durable + f.Fingerprint + f.Resource +
		f.Batch + string(f.Class) + string(f.State)
	return f.IDs == nil && texts == "" && f.Since.IsZero() && f.Until.IsZero()
}

// matcher is a Filter made ready for many letters.
type matcher struct {
	Filter
	ids map[key]bool // nil: any
	// abandoned is from before when a claim counts as open, if StateOpen is asked
	// for; zero: none does.
	abandoned time.Time
}

func newMatcher(f Filter) *matcher {
	m := &matcher{Filter: f}
	if f.IDs != nil {
		m.ids = make(map[key]bool, len(f.IDs))
	}
	for _, id := range f.IDs {
		k, _ := keyOf(id)
		m.ids[k] = true
	}
	return m
}

// matches reports whether m lets l through.
func (m *matcher) matches(k key, l *Letter) bool {
	if m.ids != nil && !m.ids[k] {
		return false
	}
	for _, c := range [...]struct{ want, have string }{
		{m.CorrelationID, l.CorrelationID}, {m.TenantID, l.TenantID}, {m.Type, l.Type},
		{m.Durable, l.Durable}, {m.Fingerprint, l.Fingerprint}, {m.Resource, l.Resource},
		{m.Batch, l.batch()}, {string(m.Class), string(l.Class)},
	} {
		if c.want != "" && c.want != c.have {
			return false
		}
	}
	return m.matchesState(l) && m.matchesTime(l.StoredAt)
}

func (m *matcher) matchesState(l *Letter) bool {
	s := l.State
	switch {
	case m.State == StateAny, m.State == "" && (m.ids != nil || m.Batch != ""):
		return true
	case m.State == "":
		return !s.Closed()
	case m.State == StateOpen && s == StateClaimed:
		return l.Mark.StoredAt.Before(m.abandoned)
	}
	return s == m.State
}

func (m *matcher) matchesTime(at time.Time) bool {
	return !at.Before(m.Since) && (m.Until.IsZero() || at.Before(m.Until))
}
