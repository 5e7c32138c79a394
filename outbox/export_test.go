package outbox

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// OnPublished calls f after every row of a page is acknowledged and before the
// cursor moves: the window in which a crash leaves messages stored and the
// cursor behind.
func (r *Relay) OnPublished(f func(stream string, rows int)) { r.hooks.published = f }

// OnPolled calls f after every poll.
func (r *Relay) OnPolled(f func()) { r.hooks.polled = f }

// Tick sets how often a relay looks for late answers.
func (r *Relay) Tick(d time.Duration) { r.tick = d }

// ReviseEvery sets how often a leader looks for what came since its term began.
func (r *Relay) ReviseEvery(d time.Duration) { r.reviseEvery = d }

// AnchorEvery sets how often the cursor is moved in a walk and copied; zero
// moves it past every page and copies every one.
func (r *Relay) AnchorEvery(d time.Duration) { r.anchorEvery, r.moveEvery = d, min(d, r.moveEvery) }

// LingerFor sets how long a relay goes on polling when it has said that it sleeps.
func (r *Relay) LingerFor(d time.Duration) { r.lingerFor = d }

// TrustFor sets for how long a connection that saw the relay awake does not look.
func (o *Outbox) TrustFor(d time.Duration) { o.trustFor = d }

// Statement is one that the relay sends, as the tests of plans see it.
type Statement struct {
	SQL    string
	Pinned bool // PinPlan goes before it
}

// PinPlan settles the plan of the statements that follow in the transaction.
const PinPlan = pinPlan

// Statements returns what the relay and ReadStatus send that may touch many
// rows, and the moves of the cursor, by name.
func Statements(schema string) map[string]Statement {
	s := newStatements(schema)
	return map[string]Statement{
		"glance":     {s.glance, false},
		"poll":       {s.poll, true},
		"page":       {s.page, true},
		"held page":  {s.heldPage, true},
		"adopt":      {s.adopt, true},
		"check":      {s.check, true},
		"status":     {strings.ReplaceAll(statusSQL, "{{schema}}", schema), true},
		"observe":    {s.observe, false},
		"rest":       {strings.ReplaceAll(restSQL, "{{schema}}", schema), true},
		"commitBase": {s.commitBase, false},
		"beginWalk":  {s.beginWalk, false},
		"commitPage": {s.commitPage, false},
		"endWalk":    {s.endWalk, false},
		"rewindTo":   {s.rewindTo, false},
		"window":     {s.window, true},
		"events":     {s.windowOfEvents, true},
		"drop":       {s.drop, false},
	}
}

// Retain makes published rows stay for horizon only, which may be shorter than a
// configuration allows, and looks for rows to delete that often, in batches of
// that many rows, without a rest.
func (r *Relay) Retain(horizon, every time.Duration, rows int) {
	r.pace = pace{horizon: horizon, every: every, resweep: every, rows: rows}
}

// ObserveEvery sets how often the database is asked what waits.
func (r *Relay) ObserveEvery(d time.Duration) { r.observer.every = d }

// Published, Duplicates and Fault count as a leader does.
func (r *Relay) Published(stream string, n int) { r.metrics.published(stream, n) }

// Duplicates: see Published.
func (r *Relay) Duplicates(stream string, n int) { r.metrics.duplicates(stream, n) }

// Fault: see Published.
func (r *Relay) Fault(stream string, why error) { r.metrics.fault(stream, why) }

// The classes of faults.
var (
	ErrRefused   = errRefused
	ErrForTests  = errors.New("something else")
	ErrNoAnswers = errNoAnswer
)

// CompareWithin bounds how long messages of a tail are compared with the rows.
func (r *Relay) CompareWithin(d time.Duration) { r.compareWithin = d }

// OnRetained calls f after retention has looked at all streams.
func (r *Relay) OnRetained(f func()) { r.hooks.retained = f }

// Lateness is a lateness that tests feed.
type Lateness struct{ l lateness }

// NewLateness returns one with a bound.
func NewLateness(bound time.Duration) *Lateness { return &Lateness{lateness{bound: bound}} }

// Note takes the age of the oldest event of each stream.
func (l *Lateness) Note(ages map[string]time.Duration) (late []string, soon bool) {
	var seen observation
	for _, stream := range slices.Sorted(maps.Keys(ages)) {
		seen.streams = append(seen.streams, observed{stream: stream, age: ages[stream]})
	}
	all, soon := l.l.note(&seen)
	for _, s := range all {
		late = append(late, s.stream)
	}
	return late, soon
}

// Counting returns a relay that can count and nothing else.
func Counting(provider metric.MeterProvider) *Relay {
	m, _ := newMetrics(provider)
	return &Relay{metrics: m}
}
