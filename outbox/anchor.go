package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// How many anchors there are: every cursor write is one, the last second's are
// not copied, and what is copied is thinned with age to one a minute, an hour and
// a day, at most a few hundred rows per stream. Those beyond the horizon go with
// the rows that retention deletes, all but the newest.
const thinEvery = time.Minute

// highest is the newest stored message of a page: what an anchor remembers. The
// zero value says that nothing was stored yet.
type highest struct {
	sequence int64
	id       pgtype.UUID
}

// newer returns the one with the higher sequence.
func (h highest) newer(other highest) highest {
	if other.sequence > h.sequence {
		return other
	}
	return h
}

// anchor is a cursor of the past, by the moment until which it was the cursor.
// All that was published up to it lies in the stream at or below its message.
type anchor struct {
	highest
	behind int64     // what was not published by then lies behind this sequence
	at     time.Time // exactly as in the database, its key
}

// state is what the database knows of a stream's past.
type state struct {
	created   time.Time // zero: never recorded
	recreated bool      // waits for an operator
	released  time.Time // when a parked key was last released; zero: never
	acked     highest   // the newest anchor: the cursor itself
	behind    int64     // what is not published lies behind this sequence; 0: not known
	anchors   []anchor  // the older ones, oldest first
}

// commit moves the cursor of a lane past rows that are stored; what is not yet
// lies behind the given sequence of the stream. Now and then it copies the
// cursor before, in the same statement. more is what the statement wants beside.
func (d *dispatcher) commit(ctx context.Context, l *lane, sql string, to any, acked highest, behind int64, more ...any) error {
	now := time.Now()
	keep := now.Sub(l.anchored) >= d.anchorEvery
	if keep && now.Sub(l.thinned) >= thinEvery {
		if err := d.thin(ctx, l.name); err != nil {
			return err
		}
		l.thinned = now
	}
	if keep {
		l.anchored = now
	}
	return d.move(ctx, d.lease, sql, l.name, append([]any{to, acked.sequence, acked.id, keep, behind}, more...)...)
}

// thin drops the anchors that are too many.
func (d *dispatcher) thin(ctx context.Context, stream string) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.LeaseTTL)
	defer cancel()
	if _, err := d.pool.Exec(ctx, d.sql.thin, d.lease.holder, d.lease.term, stream); err != nil {
		return fmt.Errorf("thin the anchors of %s: %w", stream, explain(err))
	}
	return nil
}

// readState reads cursor and anchors of a stream. Nobody moves them meanwhile:
// the lane is busy with us, and the fence keeps others out.
func (d *dispatcher) readState(ctx context.Context, stream string) (state, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.LeaseTTL)
	defer cancel()
	var s state
	var created, recreated, released *time.Time
	err := d.pool.QueryRow(ctx, d.sql.readState, stream).Scan(&created, &recreated, &released, &s.behind, &s.acked.sequence, &s.acked.id)
	if err != nil {
		return s, fmt.Errorf("read the cursor of %s: %w", stream, explain(err))
	}
	if created != nil {
		s.created = *created
	}
	if released != nil {
		s.released = *released
	}
	s.recreated = recreated != nil
	rows, err := d.pool.Query(ctx, d.sql.readAnchors, stream)
	if err != nil {
		return s, fmt.Errorf("read the anchors of %s: %w", stream, explain(err))
	}
	s.anchors, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (a anchor, err error) {
		return a, r.Scan(&a.at, &a.behind, &a.sequence, &a.id)
	})
	if err != nil {
		return s, fmt.Errorf("read the anchors of %s: %w", stream, explain(err))
	}
	return s, nil
}

// loadLanes makes a lane of every cursor that has none yet.
func (d *dispatcher) loadLanes(ctx context.Context) error {
	rows, err := d.pool.Query(ctx, d.sql.lanes)
	if err != nil {
		return fmt.Errorf("read the cursors: %w", explain(err))
	}
	defer rows.Close()
	for rows.Next() {
		var created *time.Time
		var behind int64
		var older *int64
		var foreign bool
		l := &lane{guard: guard{ask: d.asker(), every: d.cfg.ProbeInterval, suspect: true}}
		g := &l.guard
		if err := rows.Scan(&l.name, &created, &behind, &g.newest.sequence, &g.newest.id, &older, &g.before.id, &foreign); err != nil {
			return fmt.Errorf("read the cursors: %w", err)
		}
		if g.stream = l.name; created != nil {
			g.created = *created
		}
		if older != nil {
			g.before.sequence = *older
		}
		if d.lanes[l.name] == nil {
			l.recall = d.newRecall(l.name)
			l.recall.begin(behind)
			l.foreign.Store(foreign)
			d.lanes[l.name] = l
		}
	}
	return rows.Err()
}
