package outbox

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// row is one message as it lies in the table; the relay never decodes it.
type row struct {
	seq      int64
	id       pgtype.UUID
	subject  string
	key      string
	headers  string
	envelope []byte
}

func (r *row) size() int { return len(r.envelope) + len(r.headers) + len(r.subject) + len(r.key) }

func (r *row) uuid() string {
	text, err := r.id.Value()
	if err != nil || text == nil {
		return "unknown"
	}
	return fmt.Sprint(text)
}

// delta is what a poll found for one stream.
type delta struct {
	stream   string
	snapshot string // the snapshot the rows were read with
	lastSeq  int64  // the last number given out by then, or a little later
	rows     []row  // in seq order; empty when it is not complete
	complete bool   // rows are everything between base and snapshot
	bytes    int
	flags
}

// flags are what a poll tells of a stream beside its new rows.
type flags struct {
	walking    bool // a walk was begun earlier and is to be resumed
	exceptions bool // there are parked keys or discarded rows
	requested  bool // an operator asks for something
}

func (d *delta) idle() bool {
	return d.complete && !d.walking && !d.requested && len(d.rows) == 0
}

// glance tells which of the given streams have something to do. It is what an
// idle relay asks: one statement, made for finding nothing.
//
// Its plan is made anew each time. A plan that was kept since the table was
// empty would read all of it.
func (r *Relay) glance(ctx context.Context, streams []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL)
	defer cancel()
	rows, err := r.pool.Query(ctx, r.sql.glance, pgx.QueryExecModeExec, streams)
	if err == nil {
		streams, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("look for new rows: %w", explain(err))
	}
	return streams, nil
}

// poll asks for the new rows of the given streams in one statement.
//
// It writes nothing: an idle poll keeps the old base. A snapshot held in
// memory must never become the base of a later poll, because rolled-back
// transactions raise it without a flush, and after a crash of the database
// their ids are given to new rows, which would then count as seen.
func (r *Relay) poll(ctx context.Context, sql string, streams []string) ([]*delta, error) {
	limit := r.pageRows()
	found := make(map[string]*delta, len(streams))
	err := r.pinned(ctx, func(rows pgx.Rows) error {
		return eachPollRow(rows, func(of delta, e *row) {
			d := found[of.stream]
			if d == nil {
				first := of
				first.complete = true
				d, found[of.stream] = &first, &first
			}
			r.addToDelta(d, e, limit)
		})
	}, sql, streams, limit)
	if err != nil {
		return nil, fmt.Errorf("look for new rows: %w", explain(err))
	}
	deltas := make([]*delta, 0, len(found))
	for _, d := range found {
		slices.SortFunc(d.rows, func(a, b row) int { return cmp.Compare(a.seq, b.seq) })
		deltas = append(deltas, d)
	}
	return deltas, nil
}

// pinned runs a query with a plan that does not depend on statistics: with the
// planner's freedom it may read and sort the whole backlog, or the whole table.
//
// Both statements are one round trip and, as nothing begins a transaction, one
// transaction: the settings end with it.
func (r *Relay) pinned(ctx context.Context, read func(pgx.Rows) error, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL)
	defer cancel()
	var batch pgx.Batch
	batch.Queue(pinPlan)
	batch.Queue(sql, args...).Query(read)
	return r.pool.SendBatch(ctx, &batch).Close()
}

// addToDelta keeps the rows of a delta while they fit a page. Past that they
// are dropped, and the stream is walked in pages instead.
func (r *Relay) addToDelta(d *delta, e *row, limit int) {
	if e == nil || !d.complete {
		return
	}
	d.rows = append(d.rows, *e)
	d.bytes += e.size()
	// Fewer rows than the limit in all means that every branch was read to its end.
	if len(d.rows) >= limit || d.bytes > r.cfg.PageBytes {
		r.sizeHint.Store(int64(d.bytes / len(d.rows)))
		d.complete, d.rows = false, nil
	}
}

// eachPollRow scans the rows of a poll; e is nil for a stream without news.
func eachPollRow(rows pgx.Rows, visit func(of delta, e *row)) error {
	for rows.Next() {
		var (
			d                     delta
			seq                   *int64
			id                    pgtype.UUID
			subject, key, headers *string
			envelope              []byte
		)
		if err := rows.Scan(&d.stream, &d.walking, &d.exceptions, &d.requested, &d.snapshot, &d.lastSeq,
			&seq, &id, &subject, &key, &headers, &envelope); err != nil {
			return err
		}
		if seq == nil {
			visit(d, nil)
			continue
		}
		visit(d, &row{*seq, id, *subject, *key, *headers, envelope})
	}
	return rows.Err()
}

// readPage reads the page of a walk that follows the given position, or the
// committed one if that is later. Base and target come from the state row.
func (r *Relay) readPage(ctx context.Context, stream string, after int64) (page, error) {
	limit := r.pageRows()
	return r.readPinned(ctx, stream, limit, r.sql.page, stream, limit, after)
}

// readPinned reads a page of a stream with a pinned plan.
func (r *Relay) readPinned(ctx context.Context, stream string, limit int, sql string, args ...any) (p page, err error) {
	err = r.pinned(ctx, func(rows pgx.Rows) (err error) {
		p, err = r.collectPage(rows, limit)
		return err
	}, sql, args...)
	if err != nil {
		return page{}, fmt.Errorf("read a page of %s: %w", stream, explain(err))
	}
	return p, nil
}

// pageRows is how many rows of the size seen last fit a page: what does not fit
// would be sent by the database only to be dropped here.
func (r *Relay) pageRows() int {
	size := max(r.sizeHint.Load(), 1)
	return min(r.cfg.PageRows, max(2, r.cfg.PageBytes/int(size)))
}

func (r *Relay) collectPage(rows pgx.Rows, limit int) (page, error) {
	defer rows.Close()
	p := page{last: true}
	b := newPageBuffer(&r.buffers, limit)
	for p.last && rows.Next() {
		if err := b.add(rows); err != nil {
			return page{}, err
		}
		p.last = b.size() <= r.cfg.PageBytes && len(b.rows) < limit
	}
	if n := len(b.rows); n > 0 {
		r.sizeHint.Store(int64(b.size() / n))
		p.rows, p.through, p.free = b.take(), b.rows[n-1].seq, b.free
	}
	rows.Close()
	return p, rows.Err()
}

// move writes the state row of a stream under the fence of the term.
func (r *Relay) move(ctx context.Context, l *lease, sql, stream string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL)
	defer cancel()
	tag, err := r.pool.Exec(ctx, sql, append([]any{l.holder, l.term, stream}, args...)...)
	switch {
	case err != nil:
		return fmt.Errorf("move the cursor of %s: %w", stream, explain(err))
	case tag.RowsAffected() != 1:
		return fmt.Errorf("move the cursor of %s: %w", stream, errLeaseLost)
	}
	return nil
}
