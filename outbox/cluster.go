package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/internal/backoff"
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
// docs/decisions/0012.

// foreignBatch is how many rows one transaction goes through: it shares the lock
// of the lease, which a renewal waits for.
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

// beginTakeOver remembers the foreign cursors, sees to it that the sequence is
// past all rows, and takes the first base here.
func (d *dispatcher) beginTakeOver(ctx context.Context, f foreign) error {
	streams := append(f.moved, f.lost...)
	if len(streams) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.LeaseTTL)
	defer cancel()
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
		last, again, err := d.passSequence(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, d.sql.foreignBegin, streams, last, again); err != nil {
			return err
		}
		d.log.Warn("rows and cursors are of another PostgreSQL cluster; the relay takes them over",
			"streams", streams, "without_cursor", f.lost, "last_seq", last, "numbers_given_out_again_through", again)
		return nil
	})
}

// passSequence returns the last number given out. Where the sequence did not come
// along with the rows it is set past them, and numbers up to again may be of rows
// that were written here since.
func (d *dispatcher) passSequence(ctx context.Context, tx pgx.Tx) (last, again int64, err error) {
	var top int64
	if err := tx.QueryRow(ctx, d.sql.foreignSeq).Scan(&last, &top); err != nil || last >= top {
		return last, 0, err
	}
	if _, err := tx.Exec(ctx, d.sql.foreignPatience, fmt.Sprint(lockPatience.Milliseconds())); err != nil {
		return 0, 0, err
	}
	if _, err := tx.Exec(ctx, d.sql.foreignLock); err != nil {
		return 0, 0, fmt.Errorf("wait for a moment without writers: %w", err)
	}
	if err := tx.QueryRow(ctx, d.sql.foreignSeq).Scan(&again, &top); err != nil || again >= top {
		return again, again, err
	}
	return top, again, tx.QueryRow(ctx, d.sql.foreignSetSeq, top).Scan(nil)
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
	if err := d.move(ctx, d.lease, d.sql.foreignEnd, stream); err != nil {
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
				sleep(ctx, retry.Delay(failures))
			case !l.foreign.Load():
				d.log.Info("the transaction ids of another cluster are rewritten", "stream", l.name)
			default:
				sleep(ctx, time.Since(began))
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
