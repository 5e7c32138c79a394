package dlq

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// Bounds of what acts on many letters, unless the Request says otherwise.
const (
	DefaultMax  = 1000 // of Request.Max
	DefaultRate = 50   // of Request.Rate, for replays
)

// Request says who wants something done about letters and why (requirement Q3);
// both are stored with each letter, for as long as that is kept. By and Reason are
// required. Which letters are meant is the id or the Filter beside it.
type Request struct {
	// By is who, as <kind>:<id>, such as "operator:ola"; see [envelope.Actor].
	By string
	// Reason is why, in at most 1 KiB, such as "hostname fixed, DV-412".
	Reason string

	// DryRun makes every check, on what is stored now, and changes nothing.
	// Default: false.
	DryRun bool

	// Again acts on a letter although its last replay is outstanding: nobody has
	// said whether it was handled. Replayed again, it is handled twice unless the
	// inbox has the effect, and that remembers for its horizon (45 days by
	// default) and not at all where a handler has none. It also replays what failed
	// or was first replayed longer ago than that, see [ErrForgotten]. Discarded, it
	// may still be handled, and is resolved then. Default: false, which makes an
	// outstanding replay a [*ConflictError].
	Again bool

	// Edit changes the data of what is replayed; see [Transform] and
	// [ReplaceData]. It is for Replay and ReplayAll. Default: nil, the letter's
	// own bytes.
	Edit *Edit

	// Max bounds how many letters a Filter may mean: if it means more, nothing is
	// done about any of them, which is a [*TooManyError]. Default: DefaultMax.
	Max int

	// Rate bounds how many letters are acted on in a second, so that a repaired
	// service is not run over by what it failed to handle. It is for calls with a
	// Filter. Default: DefaultRate for replays, none for the rest, which are marks
	// only.
	Rate float64

	// Progress is called after each letter of a call with a Filter, by the
	// goroutine of the caller; the last outcome is the letter's. It must not keep
	// or change the outcomes. Default: nil.
	Progress func(Report)
}

// act is what a Request is for.
type act struct {
	name string // as a verb, in messages
	rate float64
	// takesOver says that it carries out the abandoned claim of somebody else.
	takesOver bool
	// mayEdit says that Request.Edit has a meaning.
	mayEdit bool
	// do acts on one letter. The state is what the letter is in the end.
	do func(ctx context.Context, p pick, o order) (State, *Replay, error)
}

// pick is one letter that is meant: its newest copy when it was looked for, and
// where its last mark was then, 0 for none.
type pick struct {
	id string
	place
	mark uint64
}

// order is a request under way.
type order struct {
	Request
	batch string // "" for a single letter
}

// validate returns every fault of r at once.
func (r Request) validate(a act) error {
	var faults []error
	by := envelope.Actor(r.By)
	if _, err := envelope.NewActor(by.Kind(), by.ID()); err != nil {
		faults = append(faults, &FieldError{"Request.By", "must say who, as <kind>:<id> like operator:ola: " + err.Error()})
	}
	switch {
	case strings.TrimSpace(r.Reason) == "":
		faults = append(faults, &FieldError{"Request.Reason", "must say why: it is the audit trail"})
	case len(r.Reason) > maxReason || !utf8.ValidString(r.Reason):
		faults = append(faults, &FieldError{"Request.Reason", "must be UTF-8 of at most 1024 bytes: refer to a ticket"})
	}
	if r.Edit != nil && !a.mayEdit {
		faults = append(faults, &FieldError{"Request.Edit", "is for replays: " + a.name + " changes no data"})
	}
	if r.Max < 0 {
		faults = append(faults, &FieldError{"Request.Max", "is negative: leave it zero for the default"})
	}
	// Not-a-number fails every comparison, so the accepted range is asked for.
	if !(r.Rate >= 0 && r.Rate <= maxRate) {
		faults = append(faults, &FieldError{"Request.Rate", "must be 0 (the default) to 1,000,000 letters a second"})
	}
	return errors.Join(faults...)
}

// maxRate is more than any broker takes.
const maxRate = 1e6

// mark returns the mark that o leaves on a letter whose copy is about.
func (o order) mark(state State, round int, about stored) (Mark, error) {
	m, err := newMark(state, round, o.By, o.Reason, about)
	m.Batch = o.batch
	return m, err
}

// pacer spreads what is done over time. The zero value does not wait.
type pacer struct {
	interval time.Duration
	next     time.Time
}

func newPacer(rate float64) *pacer {
	if rate == 0 {
		return &pacer{}
	}
	return &pacer{interval: time.Duration(float64(time.Second) / rate)}
}

// wait returns when the next letter may be acted on, or when ctx ends.
func (p *pacer) wait(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d := time.Until(p.next)
	if p.interval == 0 || d <= 0 {
		return nil
	}
	sleep.For(ctx, d)
	return context.Cause(ctx)
}

// acted counts a letter that was acted on. Time that was lost is not caught up:
// a burst is what the rate is there to prevent.
func (p *pacer) acted() {
	now := time.Now()
	if p.next.Before(now.Add(-p.interval)) {
		p.next = now
	}
	p.next = p.next.Add(p.interval)
}
