package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// believe is the pause between two looks at a loss. A leader that is being
// replaced may answer for a moment with what it has, so one look is not enough.
const believe = 200 * time.Millisecond

// tend does what a lane needs: publish news, or look whether the stream is as
// it was left. Where something seems lost, it heals.
func (d *dispatcher) tend(stop, work context.Context, l *lane, news *delta) error {
	var err error
	if news != nil {
		err = d.serve(stop, work, l, news)
	} else if err = d.retention.suspicion(l.name); err == nil {
		err = l.guard.check(stop, work, highest{})
	}
	healed := errors.Is(err, errSuspect)
	if healed {
		d.retention.note(l.name, false)
		err = d.heal(stop, work, l)
	}
	defer func() { d.retention.note(l.name, err == nil && !healed && !l.guard.suspect && !l.guard.rewound) }()
	_, recreated := errors.AsType[*RecreatedError](err)
	switch {
	case errors.Is(err, errStopped):
		return nil // the cursor did not move: whoever leads next goes on from there
	case recreated || errors.Is(err, errNoAnswer):
		d.hold(l, err)
		return nil
	case err == nil:
		l.faults = 0
		d.health.good(streamPart + l.name)
		if !healed {
			l.progressed(news != nil)
		}
	}
	return err
}

// hold keeps a lane from its stream for a growing time. The others go on.
func (d *dispatcher) hold(l *lane, why error) {
	policy := backoff.Policy{Initial: 50 * time.Millisecond, Max: 2 * time.Second}
	l.faults++
	l.heldUntil = time.Now().Add(policy.Delay(l.faults))
	l.guard.suspect = true
	d.health.bad(streamPart+l.name, why)
}

// progressed notes that a lane published its news, or found its stream as it
// was left.
func (l *lane) progressed(served bool) {
	switch {
	case !served && !l.guard.suspect && !l.guard.rewound:
		l.rewinds = 0 // what was sent again is there
	case served && l.guard.rewound && !l.guard.suspect:
		// What was lost is sent again; now look whether it stays. An answer
		// "duplicate" counts as stored, which holds because a server that
		// restarts rebuilds its duplicate window from the messages it has. The
		// exception is a message deleted by hand: its id is remembered without
		// it. If that is the newest, this look finds it, and the rewinds go on,
		// slower and slower, until the window has forgotten the id.
		l.guard.rewound, l.guard.suspect = false, true
	}
}

// finding is what a close look at a stream found.
type finding struct {
	facts
	recreated bool    // another stream of the same name
	lost      *anchor // the oldest anchor whose message is gone; nil if none is
	back      *anchor // the newest before it that holds; nil for the very beginning
}

// sound tells that there is nothing to heal.
func (f finding) sound() bool { return !f.recreated && f.lost == nil }

// heal compares the stream with all anchors and does what follows: nothing, go
// back, or wait for the operator. A page that was under way is abandoned by
// then; its cursor did not move, so it is polled again.
func (d *dispatcher) heal(stop, work context.Context, l *lane) error {
	reconnects := d.nc.Stats().Reconnects
	s, err := d.readState(work, l.name)
	if err != nil {
		return err
	}
	asking, cancel := hurried(stop, work)
	defer cancel()
	f, err := d.examine(asking, l, s)
	if err == nil && !f.sound() {
		sleep.For(asking, believe)
		f, err = d.examine(asking, l, s)
	}
	switch {
	case err != nil:
		return err
	case f.recreated:
		return d.await(work, l, s, f)
	}
	if err := d.settle(work, l, s, f); err != nil {
		return err
	}
	g := &l.guard
	g.created, g.newest, g.before = f.created, s.acked, highest{}
	g.suspect, g.reconnects, g.at, g.window = false, reconnects, time.Now(), f.window
	l.recall.begin(s.behind)
	if f.lost != nil {
		return d.rewind(work, l, s, f)
	}
	return nil
}

// examine looks at every anchor, from the oldest to the cursor itself. The
// first that is gone decides, also where later ones are there: the stream may
// have lost its end and been filled up since.
func (d *dispatcher) examine(ctx context.Context, l *lane, s state) (finding, error) {
	facts, err := l.guard.ask.stream(ctx, l.name)
	if err != nil {
		return finding{}, err
	}
	f := finding{facts: facts}
	if s.acked.sequence > 0 && !s.created.IsZero() && !s.created.Equal(facts.created) {
		f.recreated = true
		return f, nil
	}
	for _, a := range append(s.anchors, anchor{highest: s.acked}) {
		seen, err := l.guard.ask.look(ctx, l.name, facts, a.highest)
		switch {
		case err != nil:
			return finding{}, err
		case seen == lost:
			f.lost = &a
			return f, nil
		case !a.at.After(s.released):
			f.back = nil // a key that was released since would not come again from there
		case seen == held || a.sequence == 0: // nothing was published yet: that cannot be lost
			f.back = &a
		}
	}
	f.back = nil
	return f, nil
}

// rewind moves the cursor back to where the stream still had everything. What
// is published again carries the same ids: the stream drops what survived, as
// long as its duplicate window remembers, and the inbox absorbs the rest.
//
// The state row becomes what it was then, floors included (see
// docs/decisions/0007). Where no anchor is left, all rows are published again:
// repeats, never gaps.
func (d *dispatcher) rewind(ctx context.Context, l *lane, s state, f finding) error {
	to, err := d.goBack(ctx, l, f.back, true)
	if err != nil {
		return err
	}
	d.log.Warn("the broker lost messages it had acknowledged; they are published again", "stream", l.name,
		"expected_sequence", s.acked.sequence, "missing_at", f.lost.sequence,
		"found_first", f.first, "found_last", f.last, "from_sequence", to.sequence, "all_rows", f.back == nil)
	l.guard.rewound = true
	l.rewinds++
	if l.rewinds > 1 {
		policy := backoff.Policy{Initial: time.Second, Max: time.Minute}
		l.heldUntil = time.Now().Add(policy.Delay(l.rewinds - 1))
	}
	return nil
}

// settle records the stream's creation time when it is new to us, or when the
// stream that an operator was to accept is gone again.
func (d *dispatcher) settle(ctx context.Context, l *lane, s state, f finding) error {
	if s.created.Equal(f.created) && !s.recreated {
		return nil
	}
	return d.move(ctx, d.lease, d.sql.settle, l.name, f.created)
}

// await records the stream that stands in the place of ours, and says so.
func (d *dispatcher) await(ctx context.Context, l *lane, s state, f finding) error {
	if err := d.move(ctx, d.lease, d.sql.await, l.name, f.created); err != nil {
		return err
	}
	return fmt.Errorf("%w", &RecreatedError{Stream: l.name, Recorded: s.created, Found: f.created})
}
