package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// recall asks a stream for what it holds of ours behind the cursor, where its
// duplicate window may have forgotten it: before a row is sent that an earlier
// term may have sent, that lies behind a cursor that went back, or whose first
// attempt was never answered and is old. One goroutine uses it at a time: the
// dispatcher, or the worker of a busy lane.
type recall struct {
	ask      asker
	stream   string
	ours     author
	patience time.Duration
	oldest   func(ctx context.Context, stream string) (time.Time, error)
	log      *slog.Logger

	after int64     // what is not recorded lies behind this sequence; 0: not known
	open  bool      // rows may still come that are in the stream already
	due   bool      // ask before anything is sent
	tail  *tail     // what the stream said
	again int64     // what is stored up to here is wanted once more; 0: nothing is
	at    time.Time // what was sent before and is not in the tail is not stored
	tried time.Time // since when it does not answer
	tries int       // and how often it was asked
}

func (d *dispatcher) newRecall(stream string) recall {
	return recall{
		ask: d.asker(), stream: stream, ours: author{d.out.set.Service.String(), d.cfg.Site},
		patience: 6 * d.cfg.AckTimeout, oldest: d.oldestRow, log: d.log,
	}
}

// begin expects rows that are stored already, behind the given sequence.
func (r *recall) begin(after int64) {
	r.after, r.open, r.due, r.tail = after, true, true, nil
}

// end goes on from a sequence that everything up to it is recorded of.
func (r *recall) end(after int64) {
	r.after, r.open, r.due, r.tail = max(r.after, after), false, false, nil
}

// read asks the stream. Where it does not answer for long, as if the user may
// not make a consumer there, the relay goes on without: repeats are absorbed.
func (r *recall) read(stop, work context.Context, after int64) error {
	ctx, cancel := hurried(stop, work)
	defer cancel()
	began := time.Now()
	t, err := r.readFrom(ctx, after)
	switch {
	case errors.Is(err, errNoAnswer) && r.patient(began):
		return err
	case errors.Is(err, errNoAnswer):
		r.log.Warn("the stream does not tell what it holds already; messages may be stored twice, and the inbox absorbs them",
			"stream", r.stream, "reason", err)
	case err != nil:
		return err
	case t.cut:
		r.log.Warn("the stream holds too much behind the cursor to read it all; messages may be stored twice, and the inbox absorbs them",
			"stream", r.stream, "read", tailLimit)
	}
	r.tail, r.at, r.due, r.tries = t, began, false, 0
	return nil
}

// patient tells whether to ask once more.
func (r *recall) patient(now time.Time) bool {
	if r.tries == 0 {
		r.tried = now
	}
	r.tries++
	return r.tries < 5 || now.Sub(r.tried) < r.patience
}

// clockMargin is what the clocks of database and broker may differ by.
const clockMargin = time.Hour

func (r *recall) readFrom(ctx context.Context, after int64) (*tail, error) {
	from := place{after: after}
	if after == 0 { // no message of a row is older than the row
		oldest, err := r.oldest(ctx, r.stream)
		if err != nil || oldest.IsZero() {
			return &tail{}, err
		}
		from.since = oldest.Add(-clockMargin)
	}
	return r.ask.tail(ctx, r.stream, from, r.ours, tailLimit)
}

// find tells whether a row is stored already, and where. What an operator wants
// to be published again is not: the tail may have been read before he asked.
func (r *recall) find(id pgtype.UUID) (int64, bool) {
	sequence, found := r.tail.find(id)
	return sequence, found && sequence > max(r.after, r.again)
}

// forgotten tells whether to ask before a row is sent whose outcome has been
// unknown since the given moment.
func (r *recall) forgotten(since time.Time, window time.Duration) bool {
	if since.IsZero() {
		return false
	}
	if since.Before(r.at) {
		since = r.at
	}
	return facts{window: window}.stale(since)
}

// recalled ends the time in which rows are expected that the stream holds
// already: everything that was there at its beginning is published now. What
// is left of the tail is no row of ours.
func (d *dispatcher) recalled(stop, work context.Context, l *lane) error {
	r := &l.recall
	if r.open && r.due && r.after > 0 { // nothing was sent, so nobody asked yet
		if err := r.read(stop, work, r.after); err != nil {
			return err
		}
	}
	through := l.guard.newest.sequence
	if r.open && r.tail != nil {
		strays, err := d.strays(work, l)
		switch {
		case err != nil && (work.Err() != nil || !tookTooLong(err)):
			return err
		case err != nil: // once a term would end for it, all would
			d.log.Warn("what the stream holds of ours could not be compared with the outbox; events of a lost timeline would not be noticed",
				"stream", l.name, "events", len(r.tail.left()), "reason", err)
		}
		through = max(through, r.tail.through)
		if len(strays) > 0 || through > r.after {
			if err := d.pass(work, l, strays, through); err != nil {
				return err
			}
		}
	}
	r.end(through)
	return nil
}

// compareWithin bounds the comparison of a tail with the rows, which reads the whole
// table: nothing of the stream is published meanwhile.
const compareWithin = 15 * time.Second

// tookTooLong tells whether a statement was given up, by us or by the server's
// statement_timeout.
func tookTooLong(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "57014" || errors.Is(err, context.DeadlineExceeded)
}

// strays returns the messages of the tail that the table does not have, but for
// those whose rows retention may have deleted. Rows are compared only where
// something is left: it reads the whole table.
func (d *dispatcher) strays(ctx context.Context, l *lane) ([]known, error) {
	left := l.recall.tail.left()
	if len(left) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.compareWithin)
	defer cancel()
	ids, sequences := make([]pgtype.UUID, len(left)), make([]int64, len(left))
	for i, k := range left {
		ids[i], sequences[i] = pgtype.UUID{Bytes: k.id, Valid: true}, k.sequence
	}
	var here []bool
	if err := d.pool.QueryRow(ctx, d.sql.present, l.name, ids, sequences).Scan(&here); err != nil {
		return nil, fmt.Errorf("compare %s with the outbox: %w", l.name, explain(err))
	}
	var strays []known
	for i, k := range left {
		if !here[i] {
			strays = append(strays, k)
		}
	}
	return strays, nil
}

// fewStrays is how many ids are named in the log.
const fewStrays = 10

// pass records how far the tail was read, and reports strays: messages of ours
// of which the database knows nothing. The newest of them becomes the anchor,
// since it is there, so that they are reported once.
func (d *dispatcher) pass(ctx context.Context, l *lane, strays []known, through int64) error {
	var newest highest
	var ids []string
	first, last := int64(0), int64(0)
	for i, k := range strays {
		id := pgtype.UUID{Bytes: k.id, Valid: true}
		if newest = newest.newer(highest{k.sequence, id}); i < fewStrays {
			ids = append(ids, (&row{id: id}).uuid())
		}
		if last = max(last, k.sequence); first == 0 || k.sequence < first {
			first = k.sequence
		}
	}
	err := d.move(ctx, d.lease, d.sql.pass, l.name, through, newest.sequence, newest.id, len(strays))
	if err != nil || len(strays) == 0 {
		return err
	}
	l.guard.newest = l.guard.newest.newer(newest)
	d.log.Warn("the stream holds events of ours that the outbox does not know: the database was put back to an earlier moment, or another outbox of this service publishes here; others may have acted on them",
		"stream", l.name, "events", len(strays), "first_sequence", first, "last_sequence", last, "ids", ids)
	return nil
}

// oldestRow returns when the oldest row of a stream was written; zero without one.
func (d *dispatcher) oldestRow(ctx context.Context, stream string) (time.Time, error) {
	var at *time.Time
	if err := d.pool.QueryRow(ctx, d.sql.oldest, stream).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read the oldest row of %s: %w", stream, explain(err))
	}
	if at == nil {
		return time.Time{}, nil
	}
	return *at, nil
}
