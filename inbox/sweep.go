package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

// How a sweep goes about its work.
const (
	sweepRows = 1000 // a batch, of the archive and of deletes
	sweepRest = 4    // times as long as a delete took is the pause after it

	sweepBlocks = 32 // of a table without partitions are looked at together: a few thousand rows

	lockTries = 10                    // for the lock on a partition
	lockRest  = 80 * time.Millisecond // between two of them, four times the wait
)

// Tables beside the partitions, in the order of sweepStatements.stale.
const (
	attempts = iota
	versions
)

// sweep is one pass over the partitions.
type sweep struct {
	*Janitor
	done   Swept
	oldest time.Time
	now    time.Time // by the database's clock, when the pass began
	cutoff time.Time // what was handled before may go
}

// span is what is known of a partition's rows without reading them.
type span struct {
	bucket         int
	oldest, newest time.Time // handling times; zero if there are no rows
}

// run looks at every partition. A fault of one is not the others'.
func (s *sweep) run(ctx context.Context) error {
	spans, err := s.look(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, of := range spans {
		err := s.clean(ctx, of)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrSweeping):
			return err // the lease is another's
		case err != nil:
			faults = append(faults, fmt.Errorf("inbox: sweep: %s: %w", s.sql.of[of.bucket].partition, explain(err)))
		}
	}
	for i, cutoff := range s.staleSince() {
		if err := s.drop(ctx, &s.sql.stale[i], cutoff); err != nil {
			faults = append(faults, fmt.Errorf("inbox: sweep: %s: %w", s.sql.stale[i].table, explain(err)))
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(faults...)
}

// clean removes from one partition what may go.
//
// While something in it was handled within the horizon, the partition stays: a
// message may be much older than its handling. Only what is about to receive new
// messages again, or always does, is cleaned row by row, so that the rounds of the
// ring do not pile up.
func (s *sweep) clean(ctx context.Context, of span) error {
	switch {
	case of.newest.IsZero() || !of.oldest.Before(s.cutoff):
		return nil
	case of.newest.Before(s.cutoff):
		return s.empty(ctx, of)
	case of.bucket == otherBucket || inUse(of.bucket, s.now):
		return s.thin(ctx, of)
	}
	return nil
}

// look asks for the oldest and the newest row of each partition, two probes of an
// index each.
func (s *sweep) look(ctx context.Context) ([]span, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, s.sql.look)
	if err != nil {
		return nil, fmt.Errorf("inbox: sweep: look at the partitions: %w", explain(err))
	}
	spans, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (span, error) {
		var of span
		var oldest, newest *time.Time
		err := row.Scan(&s.now, &of.bucket, &oldest, &newest)
		if oldest != nil && newest != nil {
			of.oldest, of.newest = *oldest, *newest
		}
		return of, err
	})
	if err != nil {
		return nil, fmt.Errorf("inbox: sweep: look at the partitions: %w", explain(err))
	}
	s.cutoff = s.now.Add(-s.cfg.Horizon)
	for _, of := range spans {
		if !of.oldest.IsZero() && (s.oldest.IsZero() || of.oldest.Before(s.oldest)) {
			s.oldest = of.oldest
		}
	}
	return spans, nil
}

// empty truncates a partition in which nothing was handled within the horizon.
//
// The archive sees all rows first. What is handled meanwhile is newer than the
// horizon; the last look, under the lock that nobody else can write under, finds
// it, and the partition stays.
func (s *sweep) empty(ctx context.Context, of span) error {
	sql := &s.sql.of[of.bucket]
	if s.cfg.Archive != nil {
		if err := s.walk(ctx, of, func(rows []keptRow) error { return s.archive(ctx, rows) }); err != nil {
			return err
		}
	}
	if err := s.renew(ctx); err != nil {
		return err
	}
	emptied, err := s.truncate(ctx, sql)
	if err != nil || !emptied {
		return err
	}
	s.done.Emptied++
	s.log.Info("inbox: partition emptied", "partition", sql.partition, "last_handled", of.newest)
	return nil
}

// truncate empties a partition in one moment in which nobody writes to it. It
// looks for such a moment several times, for writers that come while it waits
// have to wait too.
func (s *sweep) truncate(ctx context.Context, sql *partitionStatements) (emptied bool, err error) {
	text := strings.ReplaceAll(sql.empty, "{{cutoff}}", s.cutoff.UTC().Format(time.RFC3339Nano))
	for try := 1; ; try++ {
		emptied, err = s.ask(ctx, text)
		switch {
		case code(err) != lockNotAvailable:
			return emptied, err
		case try == lockTries || ctx.Err() != nil:
			return false, fmt.Errorf("transactions are open on it; it stays until the next pass: %w", err)
		}
		sleep.For(ctx, lockRest)
	}
}

// ask sends statements in one message and returns what the last one answers.
func (s *sweep) ask(ctx context.Context, text string) (yes bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	results, err := conn.Conn().PgConn().Exec(ctx, text).ReadAll()
	if err != nil {
		return false, err
	}
	rows := results[len(results)-1].Rows
	return len(rows) == 1 && string(rows[0][0]) == "t", nil
}

// thin deletes the old rows of a partition that has young ones too.
func (s *sweep) thin(ctx context.Context, of span) error {
	before := s.done.Deleted
	err := s.walk(ctx, of, func(rows []keptRow) error {
		if err := s.archive(ctx, rows); err != nil {
			return err
		}
		began := time.Now()
		if err := s.delete(ctx, of, rows); err != nil {
			return err
		}
		sleep.For(ctx, sweepRest*time.Since(began))
		return nil
	})
	if n := s.done.Deleted - before; n > 0 {
		s.log.Info("inbox: old messages deleted", "partition", s.sql.of[of.bucket].partition, "rows", n)
	}
	return err
}

// delete removes rows by their place in the table. A row that was replayed since
// it was read has another place; what lies in its old one, if anything, is young.
func (s *sweep) delete(ctx context.Context, of span, rows []keptRow) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	places := make([]string, len(rows))
	for i, r := range rows {
		places[i] = r.place
	}
	var gone int64
	batch := pinned("begin", pinToPlaces)
	batch.Queue(s.sql.of[of.bucket].delete, places, s.cutoff).Exec(func(tag pgconn.CommandTag) error {
		gone = tag.RowsAffected()
		return nil
	})
	batch.Queue("commit")
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("delete old rows: %w", err)
	}
	s.done.Deleted += gone
	return nil
}

// pinned begins a transaction whose plans do not depend on statistics.
func pinned(begin, pin string) *pgx.Batch {
	var batch pgx.Batch
	batch.Queue(begin)
	batch.Queue(pin)
	return &batch
}

// walk reads the rows of a partition that were handled before the cutoff, batch by
// batch in the order of their handling.
func (s *sweep) walk(ctx context.Context, of span, each func([]keptRow) error) error {
	last := keptRow{id: pgtype.UUID{Valid: true}} // the zero time lies before all others
	for {
		if err := s.renew(ctx); err != nil {
			return err
		}
		rows, err := s.read(ctx, of, last)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := each(rows); err != nil {
			return err
		}
		if ctx.Err() != nil || len(rows) < sweepRows {
			return context.Cause(ctx)
		}
		last = rows[len(rows)-1]
	}
}

// read returns the batch of rows that follows one.
func (s *sweep) read(ctx context.Context, of span, after keptRow) (rows []keptRow, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	batch := pinned("begin read only", pinToOrder)
	batch.Queue(s.sql.of[of.bucket].read, s.cutoff, after.HandledAt, after.Consumer, after.Source, after.id, sweepRows).
		Query(func(found pgx.Rows) error {
			rows, err = pgx.CollectRows(found, scanKept)
			return err
		})
	batch.Queue("commit")
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read old rows: %w", err)
	}
	return rows, nil
}

// staleSince tells for each table beside the partitions before when a row must
// have been touched last, to go.
func (s *sweep) staleSince() [2]time.Time {
	since := [2]time.Time{attempts: s.cutoff}
	if s.cfg.KeepVersions > 0 {
		since[versions] = s.now.Add(-s.cfg.KeepVersions)
	}
	return since
}

// drop deletes from a table, some blocks at a time, the rows that nobody touched
// since the cutoff, if there is one. It reads the table once, which is small beside
// the partitions, and needs no index that every write would pay for. A row that is
// touched meanwhile is young, wherever it moves.
func (s *sweep) drop(ctx context.Context, sql *staleStatements, cutoff time.Time) error {
	if cutoff.IsZero() {
		return nil
	}
	blocks, err := s.blocks(ctx, sql)
	for first := int64(0); first < blocks && err == nil && ctx.Err() == nil; first += sweepBlocks {
		if err = s.renew(ctx); err == nil {
			began := time.Now()
			err = s.dropRange(ctx, sql, cutoff, first)
			sleep.For(ctx, sweepRest*time.Since(began))
		}
	}
	return err
}

// blocks is the size of a table.
func (s *sweep) blocks(ctx context.Context, sql *staleStatements) (blocks int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return blocks, s.pool.QueryRow(ctx, sql.size).Scan(&blocks)
}

// dropRange deletes stale rows from the blocks that begin with the first.
func (s *sweep) dropRange(ctx context.Context, sql *staleStatements, cutoff time.Time, first int64) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	batch := pinned("begin", pinToBlocks)
	batch.Queue(sql.delete, place(first), place(first+sweepBlocks), cutoff).Exec(func(tag pgconn.CommandTag) error {
		s.done.Forgotten += tag.RowsAffected()
		return nil
	})
	batch.Queue("commit")
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("delete stale rows: %w", err)
	}
	return nil
}

// place is where a block begins.
func place(block int64) string { return fmt.Sprintf("(%d,0)", block) }
