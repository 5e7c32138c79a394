package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// obey carries out what operators ask for of a stream, in step with its cursor.
// It tells whether the cursor went back: what was polled is of no use then.
func (d *dispatcher) obey(stop, work context.Context, l *lane) (wentBack bool, err error) {
	released, err := d.loadExceptions(work, l)
	if err != nil {
		return false, err
	}
	if l.foreign.Load() { // which rows the cursor has passed cannot be told from their ids yet
		l.passed = l.passed || len(released) > 0
		return false, nil
	}
	if wentBack, err = d.rewindRequested(work, l); err != nil || wentBack {
		return wentBack, err
	}
	for _, key := range released {
		if err := d.release(stop, work, l, key); err != nil || stop.Err() != nil {
			return false, err
		}
	}
	l.passed = false
	return false, nil
}

// rewindRequested goes back if an operator wants a stream published again: to
// the newest anchor of the given time or before, or to the very beginning. An
// anchor from before a release is none, also where it was asked for earlier: what
// was released would not come again from there.
func (d *dispatcher) rewindRequested(ctx context.Context, l *lane) (bool, error) {
	var requested time.Time
	var since *time.Time
	var by string
	err := d.pool.QueryRow(ctx, d.sql.request, l.name).Scan(&requested, &since, &by)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for a rewind of %s: %w", l.name, explain(err))
	}
	s, err := d.readState(ctx, l.name)
	if err != nil {
		return false, err
	}
	var back *anchor
	for _, a := range s.anchors {
		if since != nil && !a.at.After(*since) && a.at.After(s.released) && (back == nil || a.at.After(back.at)) {
			back = &a
		}
	}
	// A crash between both statements goes back once more: a repeat.
	to, err := d.goBack(ctx, l, back, false)
	if err != nil {
		return false, err
	}
	d.log.Warn("an operator rewinds a stream; it is published again", "stream", l.name, "operator", by,
		"from_sequence", to.sequence, "all_rows", back == nil)
	return true, d.move(ctx, d.lease, d.sql.requestDone, l.name, requested)
}

// goBack makes an anchor the cursor, or the very beginning. To heal is to publish
// only what the stream does not hold; an operator wants it all.
func (d *dispatcher) goBack(ctx context.Context, l *lane, back *anchor, healing bool) (to highest, err error) {
	behind := int64(0)
	if back == nil {
		err = d.move(ctx, d.lease, d.sql.rewindAll, l.name, healing)
	} else {
		to, behind = back.highest, back.behind
		err = d.move(ctx, d.lease, d.sql.rewindTo, l.name, back.at, healing)
	}
	if err != nil {
		return to, err
	}
	d.metrics.rewound(l.name)
	if healing {
		l.recall.begin(behind)
	} else {
		l.recall.after = max(l.recall.after, l.guard.newest.sequence)
	}
	l.guard.newest, l.guard.before = to, highest{}
	return to, nil
}
