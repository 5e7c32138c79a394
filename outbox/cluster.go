package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// After a dump and a restore, rows and cursors carry the transaction ids of
// another PostgreSQL cluster: compared with snapshots of this one they would
// match for ever, or be skipped. The relay makes them fit, at the start of a
// term and without an operator:
//
//   - Rows that the foreign cursor does not cover get an id of today, and so are
//     new to the first base that is taken here.
//   - Rows that it covers, and whose id this cluster has not given out yet, get
//     the id 1: every snapshot sees it as past, except the empty base '1:1:' of
//     a rewind to the very beginning, whose xmax it is.
//
// Nothing but ids changes, so all that comes after is as always. The first part
// is done before anything is published, and is as long as what was not published;
// the second, which may be the whole table, goes on beside (rewriteForeign), and
// until then the rows are kept from polls by their number. See
// docs/decisions/0015.

// foreignBatch is how many rows one transaction goes through: it shares the lock
// of the lease, which a take-over waits for.
const foreignBatch = 1000

// lockPatience bounds how long a writer may be held up by the setting of the
// sequence, which needs a moment without writers.
const lockPatience = 250 * time.Millisecond

// errForeign ends a term in which rows of another cluster appear; the next one
// takes them over.
var errForeign = errors.New("rows with transaction ids of another PostgreSQL cluster have come")

// foreign is what is found of streams whose rows are not all of this cluster.
type foreign struct {
	begun, moved, lost []string
}

func (f foreign) any() bool { return len(f.begun)+len(f.moved)+len(f.lost) > 0 }

// foreignStreams returns the streams whose cursor is of another cluster, those
// that have no cursor of theirs but rows of the future, and those that a term
// before began with.
func (d *dispatcher) foreignStreams(ctx context.Context) (f foreign, err error) {
	var stream, kind string
	err = d.pinned(ctx, func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&stream, &kind}, func() error {
			switch kind {
			case "begun":
				f.begun = append(f.begun, stream)
			case "moved":
				f.moved = append(f.moved, stream)
			case "lost":
				f.lost = append(f.lost, stream)
			}
			return nil
		})
		return err
	}, d.sql.foreign)
	if err != nil {
		return f, fmt.Errorf("look for rows of another cluster: %w", explain(err))
	}
	return f, nil
}

// takeOver tells the rows of another cluster apart: published, or new here. Each
// step is a transaction that remembers it, so whoever leads next goes on.
func (d *dispatcher) takeOver(stop, ctx context.Context) error {
	f, err := d.foreignStreams(ctx)
	if err != nil || !f.any() {
		return err
	}
	if err := d.beginTakeOver(ctx, f); err != nil {
		return fmt.Errorf("take over the rows of another cluster: %w", explain(err))
	}
	d.step("begun")
	for _, stream := range append(append(f.begun, f.moved...), f.lost...) {
		if err := d.tellApart(stop, ctx, stream); err != nil {
			return err
		}
	}
	return nil
}

// numbers is what the beginning of a take-over knows of the sequence.
type numbers struct {
	last  int64 // given out, and a floor of the base to come
	again int64 // up to here numbers of the other cluster may have been given out here too
	set   bool  // the sequence did not come along and is set past the rows
}

// beginTakeOver remembers the foreign cursors, sees to it that the sequence is
// past all rows, and takes the first base here.
func (d *dispatcher) beginTakeOver(ctx context.Context, f foreign) error {
	streams := append(f.moved, f.lost...)
	if len(streams) == 0 {
		return nil
	}
	d.step("found")
	ctx, cancel := context.WithTimeout(ctx, d.cfg.LeaseTTL)
	defer cancel()
	n, err := d.readNumbers(ctx, f)
	if err != nil {
		return err
	}
	// What the base counts as new drew its id after this one, hence its number
	// after the last one: see docs/decisions/0003.
	if _, err := d.pool.Exec(ctx, d.sql.drawID); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		if tag, err := tx.Exec(ctx, d.sql.foreignFence, d.lease.holder, d.lease.term); err != nil || tag.RowsAffected() != 1 {
			return errors.Join(err, errLeaseLost)
		}
		if _, err := tx.Exec(ctx, pinPlan); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, d.sql.foreignForget, f.lost); err != nil {
			return err
		}
		if n.set {
			if err := d.setSequence(ctx, tx, &n); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, d.sql.foreignBegin, streams, n.last, n.again); err != nil {
			return err
		}
		d.log.Warn("rows and cursors are of another PostgreSQL cluster; the relay takes them over",
			"streams", streams, "without_cursor", f.lost, "last_seq", n.last, "numbers_given_out_again_through", n.again)
		return nil
	})
}

// readNumbers looks whether the sequence came along with the rows. Where it did
// not, a note of that goes before it is set: if the relay dies right after, the
// next one sees a sequence that is past all rows, and must not believe that no
// number was given out again.
func (d *dispatcher) readNumbers(ctx context.Context, f foreign) (n numbers, err error) {
	var top int64
	var unsure bool
	if err := d.pool.QueryRow(ctx, d.sql.foreignSeq).Scan(&n.last, &top, &unsure); err != nil {
		return n, err
	}
	if n.set = n.last < top; n.set {
		_, err := d.pool.Exec(ctx, d.sql.foreignUnsure, d.lease.holder, d.lease.term, f.moved)
		return n, err
	}
	if unsure {
		n.again = n.last
	}
	return n, nil
}

// setSequence sets the sequence past all rows, in a moment without writers:
// numbers up to its old value may be of rows that were written here.
func (d *dispatcher) setSequence(ctx context.Context, tx pgx.Tx, n *numbers) error {
	if _, err := tx.Exec(ctx, d.sql.foreignPatience, fmt.Sprint(lockPatience.Milliseconds())); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, d.sql.foreignLock); err != nil {
		return fmt.Errorf("wait for a moment without writers: %w", err)
	}
	var top int64
	if err := tx.QueryRow(ctx, d.sql.foreignSeq).Scan(&n.again, &top, nil); err != nil {
		return err
	}
	n.last = max(n.again, top)
	if n.again < top {
		if _, err := tx.Exec(ctx, d.sql.foreignSetSeq, top); err != nil {
			return err
		}
		d.step("numbered")
	}
	return nil
}

// tellApart goes through the rows of a stream that may not be published, and
// makes the fresh snapshot its base.
func (d *dispatcher) tellApart(stop, ctx context.Context, stream string) error {
	waiting := 0
	for done := false; !done; {
		if stop.Err() != nil {
			return errStopped
		}
		n := 0
		if err := d.foreignStep(ctx, d.sql.foreignTell, stream, &done, &n); err != nil {
			return err
		}
		waiting += n
		d.step("told")
	}
	var last int64
	if err := d.pool.QueryRow(ctx, d.sql.top, stream).Scan(&last); err != nil {
		return fmt.Errorf("take over the rows of %s: %w", stream, explain(err))
	}
	if err := d.move(ctx, d.lease, d.sql.foreignEnd, stream, last); err != nil {
		return err
	}
	d.log.Info("the rows of another cluster are taken over", "stream", stream, "not_published", waiting)
	d.step("taken")
	return nil
}

// foreignStep runs one batch of a statement that returns whether it was the last
// one, and how many rows it changed.
func (d *dispatcher) foreignStep(ctx context.Context, sql, stream string, done *bool, changed *int) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.LeaseTTL)
	defer cancel()
	held := false
	var batch pgx.Batch
	batch.Queue(pinPlan)
	batch.Queue(pinLoop)
	batch.Queue(sql, d.lease.holder, d.lease.term, stream, d.foreignBatch).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{done, changed}, func() error {
			held = true
			return nil
		})
		return err
	})
	err := d.pool.SendBatch(ctx, &batch).Close()
	switch {
	case err != nil:
		return fmt.Errorf("take over the rows of %s: %w", stream, explain(err))
	case !held:
		return fmt.Errorf("take over the rows of %s: %w", stream, errLeaseLost)
	}
	return nil
}

// rewriteForeign gives the id 1 to the published rows of the given lanes, one
// batch at a time with pauses between, so that it is a guest on the database.
func (d *dispatcher) rewriteForeign(ctx context.Context, lanes []*lane) {
	for _, l := range lanes {
		retry := backoff.Policy{Initial: time.Second, Max: time.Minute}
		for failures := 0; ctx.Err() == nil; {
			began := time.Now()
			err := d.rewriteBatch(ctx, l)
			switch {
			case errors.Is(err, errLeaseLost) || ctx.Err() != nil:
				return
			case err != nil:
				failures++
				d.log.Warn("the transaction ids of another cluster are not rewritten yet", "stream", l.name, "reason", err)
				sleep.For(ctx, retry.Delay(failures))
			case !l.foreign.Load():
				d.log.Info("the transaction ids of another cluster are rewritten", "stream", l.name)
			default:
				sleep.For(ctx, time.Since(began))
			}
			if err == nil && !l.foreign.Load() {
				break
			}
		}
	}
}

// rewriteBatch rewrites one batch, and after the last one lets the lane be as
// any other.
func (d *dispatcher) rewriteBatch(ctx context.Context, l *lane) error {
	var done bool
	var changed int
	if err := d.foreignStep(ctx, d.sql.foreignRewrite, l.name, &done, &changed); err != nil {
		return err
	}
	d.step("rewritten")
	if !done {
		return nil
	}
	if err := d.move(ctx, d.lease, d.sql.foreignDone, l.name); err != nil {
		return err
	}
	l.foreign.Store(false)
	return nil
}

// step tells tests how far a take-over has come.
func (d *dispatcher) step(name string) {
	if d.hooks.foreign != nil {
		d.hooks.foreign(name)
	}
}
