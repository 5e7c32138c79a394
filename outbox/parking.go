package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// exceptions are the rows of a stream that its cursor passes over: those of
// parked keys, and those that an operator discarded. One goroutine uses it at a
// time: the worker of a busy lane.
type exceptions struct {
	held      map[string]int64      // ordering key → seq of the head
	released  int                   // of these keys, those that an operator released
	discarded map[int64]pgtype.UUID // seq → id, since a number may be given out again
}

// pass tells whether a row is not to be published.
func (e *exceptions) pass(r *row) bool {
	if head, held := e.held[r.key]; held && r.seq >= head {
		return true
	}
	id, discarded := e.discarded[r.seq]
	return discarded && id == r.id
}

// releasedKey is a parked key that an operator lets go on.
type releasedKey struct {
	name  string
	again bool // it was published before, and is wanted once more
}

// loadExceptions reads the exceptions of a lane, and the keys that an operator
// released.
func (d *dispatcher) loadExceptions(ctx context.Context, l *lane) (released []releasedKey, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.LeaseTTL)
	defer cancel()
	e := exceptions{held: map[string]int64{}, discarded: map[int64]pgtype.UUID{}}
	var key string
	var seq int64
	var id pgtype.UUID
	var let, again bool
	rows, _ := d.pool.Query(ctx, d.sql.held, l.name)
	_, err = pgx.ForEachRow(rows, []any{&key, &seq, &let, &again}, func() error {
		if e.held[key] = seq; let {
			released = append(released, releasedKey{key, again})
		}
		return nil
	})
	if err == nil {
		rows, _ = d.pool.Query(ctx, d.sql.discarded, l.name)
		_, err = pgx.ForEachRow(rows, []any{&seq, &id}, func() error {
			e.discarded[seq] = id
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read what is parked of %s: %w", l.name, explain(err))
	}
	e.released = len(released)
	l.except = e
	return released, nil
}

// park holds a key from a row on that can never be stored. It is recorded
// before any cursor may pass the row.
//
// It refuses when very many keys are parked already: then it is the stream that
// does not fit, and it is held back instead.
func (d *dispatcher) park(ctx context.Context, l *lane, r *row, cause error) (bool, error) {
	if parked := len(l.except.held) - l.except.released; parked >= d.cfg.MaxParked {
		d.log.Warn("many keys are parked; the stream is held back instead", "stream", l.name, "parked", parked)
		return false, nil
	}
	err := d.move(ctx, d.lease, d.sql.park, l.name, r.key, r.seq, r.id, r.subject, cause.Error())
	if err != nil {
		return false, err
	}
	if l.except.held == nil {
		l.except.held = map[string]int64{}
	}
	l.except.held[r.key] = r.seq
	d.log.Warn("a message can never be stored; its key is parked until an operator decides (dvmsg outbox parked)",
		append(r.ids(), "stream", l.name, "subject", r.subject, "cause", cause)...)
	return true, nil
}

// rewindCause begins the cause of a key that is parked to be published again.
const rewindCause = "rewind: "

// releaseWindow is how many sequence numbers one look for the rows of a released
// key covers: there is no index by key, which every write would pay for.
const releaseWindow = 100_000

// release publishes what is held of a key, in order, up to where the cursor is.
// What the cursor has not reached comes by itself after.
func (d *dispatcher) release(stop, work context.Context, l *lane, released releasedKey) error {
	key := released.name
	from := l.except.held[key] - 1
	delete(l.except.held, key)
	l.except.released--
	if released.again { // what the cursor has passed is stored at or below its message
		l.recall.again = l.guard.newest.sequence
		defer func() { l.recall.again = 0 }()
	}
	var top int64
	if err := d.pool.QueryRow(work, d.sql.top, l.name).Scan(&top); err != nil {
		return fmt.Errorf("release a key of %s: %w", l.name, explain(err))
	}
	var newest highest
	read := func(ctx context.Context, after int64) (page, error) {
		return d.readHeld(ctx, l.name, key, after, top)
	}
	complete, err := d.publish(stop, work, l, feed{from, read}, func(p *flightPage) error {
		newest = newest.newer(p.newest.anchor())
		return nil
	})
	if _, again := l.except.held[key]; err != nil || !complete || again {
		return err
	}
	d.log.Info("a parked key is released", "stream", l.name)
	return d.move(work, d.lease, d.sql.unpark, l.name, key, newest.sequence, newest.id, l.passed)
}

// readHeld reads rows of one key that the cursor has passed, at most a page and
// from at most a window.
func (d *dispatcher) readHeld(ctx context.Context, stream, key string, after, top int64) (page, error) {
	limit, through := d.pageRows(), min(after+releaseWindow, top)
	p, err := d.readPinned(ctx, stream, limit, d.sql.heldPage, stream, key, after, through, limit)
	if p.last { // of this window
		p.last, p.through = through == top, through
	}
	return p, err
}
