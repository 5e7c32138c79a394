package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// How published rows leave the table again (requirement O6).
//
// A row is deleted when all of this holds:
//
//   - An anchor covers it: what the anchor says was published includes the row.
//   - The anchor is older than the horizon, by the database's clock at the moment
//     until which it was the cursor. A row's own created_at does not count: rows
//     of a long transaction are hours old when they become visible.
//   - The anchor was checked, see (*retention).checked.
//   - The row is not of a parked key at or behind the key's head.
//
// The statement that deletes rows also deletes the anchors before the one it
// deletes by, so there is never an anchor whose rows are gone, and the anchor
// itself stays: a rewind reaches as far back as the rows do. It demands the term
// of the lease like a move of the cursor, and that the anchor is still there: a
// rewind to before it takes it away.
const (
	retainEvery = time.Minute // between looks for rows that may go
	retainRows  = 1000        // a statement
	retainRest  = 4           // times as long as a batch took is the pause after it

	// What was passed over (late rows, parked keys) is looked at again after this
	// share of the horizon, within bounds.
	resweepShare                = 24
	resweepSoonest, resweepLast = time.Minute, time.Hour
)

// pace is how retention goes about its work; tests go faster.
type pace struct {
	horizon time.Duration // negative: never delete
	every   time.Duration
	resweep time.Duration
	rows    int
	rest    time.Duration // as many times as the statements took is the pause after them
}

func paceOf(horizon time.Duration) pace {
	return pace{horizon, retainEvery, min(max(horizon/resweepShare, resweepSoonest), resweepLast), retainRows, retainRest}
}

// partRetention names retention among the alarms.
const partRetention = "retention"

// retention deletes the rows that are published and too old, while a term lasts,
// beside the publishing and never in its way: on a connection of its own from
// the pool, a bounded batch at a time, with pauses in between. Whatever keeps it
// from its work is an alarm, not the end of the term.
type retention struct {
	*Relay
	lease *lease
	swept map[string]*sweep // by stream

	mu     sync.Mutex
	sound  map[string]bool // streams whose guard has no doubt left
	missed map[string]bool // streams in which an anchor seems lost, not yet looked at closely
}

func (r *Relay) newRetention(l *lease) *retention {
	return &retention{
		Relay: r, lease: l, swept: map[string]*sweep{},
		sound: map[string]bool{}, missed: map[string]bool{},
	}
}

// sweep is how far retention has come with a stream.
type sweep struct {
	by    time.Time // the anchor by which everything was deleted that could be
	from  int64     // rows up to this seq were looked at
	began time.Time // when it began at the first row
}

// limit is an anchor at or beyond the horizon, the newest one of its stream.
type limit struct {
	anchor
	stream  string
	created time.Time // of the stream
	newest  highest   // the cursor's own message
	older   bool      // there are anchors before it
	through int64     // rows of messages up to here may be gone already

	asked time.Time // when the stream was last found to hold it
}

// run looks for rows that may go, until stop or work ends.
func (k *retention) run(stop, work context.Context) {
	if k.pace.horizon < 0 {
		return
	}
	ctx, cancel := context.WithCancel(work)
	defer cancel()
	defer context.AfterFunc(stop, cancel)()
	defer k.alarms.forget(partRetention)
	retry := backoff.Policy{Initial: time.Second, Max: k.pace.every}
	for failures := 0; ; {
		pause := k.pace.every
		if failures > 0 {
			pause = min(pause, retry.Delay(failures))
		}
		if sleep.For(ctx, pause); ctx.Err() != nil {
			return
		}
		err := k.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			k.alarms.bad(partRetention, err)
		default:
			failures = 0
			k.alarms.good(partRetention)
		}
		if k.hooks.retained != nil {
			k.hooks.retained()
		}
	}
}

// pass deletes what may go by now. The fault of one stream is not the others'.
func (k *retention) pass(ctx context.Context) error {
	limits, err := k.limits(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, by := range limits {
		if err := k.prune(ctx, by); err != nil {
			faults = append(faults, fmt.Errorf("published rows of %s stay: %w", by.stream, err))
		}
	}
	return errors.Join(faults...)
}

// prune deletes the rows of one stream, window by window. Rows that must stay
// are passed over; they are looked at again in a later sweep from the first row.
func (k *retention) prune(ctx context.Context, by *limit) error {
	s := k.swept[by.stream]
	if s == nil || time.Since(s.began) >= k.pace.resweep {
		s = &sweep{began: time.Now()}
		k.swept[by.stream] = s
	}
	if s.by.Equal(by.at) && !by.older {
		return nil // everything that this anchor lets go is gone
	}
	for ctx.Err() == nil {
		began := time.Now()
		w, err := k.readWindow(ctx, by, s.from)
		if err != nil {
			return err
		}
		busy := time.Since(began)
		if len(w.doomed) > 0 || by.older {
			took, err := k.delete(ctx, by, w)
			if took < 0 || err != nil {
				return err
			}
			busy += took
		}
		s.from = w.last
		if w.end {
			s.by = by.at
			return nil
		}
		sleep.For(ctx, k.pace.rest*busy)
	}
	return nil
}

// delete takes the doomed rows of a window away, after the archive has seen
// them. It returns how long the database was busy with it, negative if the rows
// stay because the anchor is not checked or gone.
func (k *retention) delete(ctx context.Context, by *limit, w window) (time.Duration, error) {
	if !k.checked(ctx, by) {
		return -1, nil
	}
	if held, err := k.foretell(ctx, by); err != nil || !held {
		return -1, err
	}
	if err := k.archive(ctx, w.events); err != nil {
		return -1, err
	}
	began := time.Now()
	n, err := k.drop(ctx, by, w.doomed)
	if err != nil || n < 0 {
		return -1, err
	}
	by.older = false
	if n > 0 {
		k.metrics.gone(by.stream, n)
		k.log.Debug("published rows deleted", "stream", by.stream, "rows", n, "up_to", w.last)
	}
	return time.Since(began), nil
}

// checked tells whether rows may be deleted by an anchor. It is checked when
//
//   - the guard of the stream has no doubt: its last look in this term found
//     everything, nothing is suspect since, and what a rewind sent again was
//     found; a stream that was made anew, or does not answer, is never without
//     doubt (see note);
//   - and after the anchor was read from the database, the stream's leader was
//     asked: it is the stream that the anchor speaks of, it holds the anchor's
//     message where that was acknowledged, or begins behind it (aged or purged,
//     which is not loss), and the same holds for the newest message known to be
//     stored. The answer counts for ProbeInterval.
//
// An anchor that is gone though the guard is content is told to the lane, which
// looks closely at all of them: the guard itself asks for the newest ones only.
func (k *retention) checked(ctx context.Context, by *limit) bool {
	if !k.trusts(by.stream) {
		return false
	}
	if !by.asked.IsZero() && time.Since(by.asked) < k.cfg.ProbeInterval {
		return true
	}
	asked, ask := time.Now(), k.asker()
	f, err := ask.stream(ctx, by.stream)
	if err != nil || !f.created.Equal(by.created) {
		return false // the guard hears the same, and says so
	}
	for _, m := range []highest{by.highest, by.newest} {
		seen, err := ask.look(ctx, by.stream, f, m)
		if err != nil {
			return false
		}
		if seen == lost {
			k.miss(by.stream)
			return false
		}
	}
	by.asked = asked
	return k.trusts(by.stream)
}

// note takes down what a lane knows of its stream: whether its guard is without
// doubt. It is called before a stream is healed and after everything that was
// done with it.
func (k *retention) note(stream string, sound bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sound[stream] = sound
}

// trusts tells whether a stream's guard is without doubt, and retention too.
func (k *retention) trusts(stream string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sound[stream] && !k.missed[stream]
}

// miss takes down that an anchor of a stream seems lost.
func (k *retention) miss(stream string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.missed[stream] = true
}

// misses tells whether an anchor of a stream seems lost.
func (k *retention) misses(stream string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.missed[stream]
}

// suspicion returns errSuspect once after an anchor seemed lost.
func (k *retention) suspicion(stream string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.missed[stream] {
		return nil
	}
	delete(k.missed, stream)
	return errSuspect
}

// limits reads the anchors to delete by, one per stream that has one.
func (k *retention) limits(ctx context.Context) ([]*limit, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.LeaseTTL)
	defer cancel()
	rows, err := k.pool.Query(ctx, k.sql.limits, k.pace.horizon)
	if err != nil {
		return nil, fmt.Errorf("look for anchors beyond the horizon: %w", explain(err))
	}
	limits, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (*limit, error) {
		var l limit
		err := r.Scan(&l.stream, &l.created, &l.newest.sequence, &l.newest.id, &l.through, &l.at, &l.sequence, &l.id, &l.older)
		return &l, err
	})
	if err != nil {
		return nil, fmt.Errorf("look for anchors beyond the horizon: %w", explain(err))
	}
	return limits, nil
}

// window is a bounded range of rows, and those of it that may go.
type window struct {
	doomed []int64
	events []ArchivedEvent // of the doomed rows; only where there is an archive
	last   int64           // the highest seq that was read
	end    bool            // nothing follows
}

// readWindow reads the rows that follow a seq. It takes no lock: what may go
// once may go until its anchor is gone, which drop looks at.
func (k *retention) readWindow(ctx context.Context, by *limit, after int64) (window, error) {
	sql, rows := k.sql.window, k.pace.rows
	if k.cfg.Archive != nil {
		sql, rows = k.sql.windowOfEvents, min(rows, k.pageRows())
	}
	w := window{last: after}
	read := func(found pgx.Rows) error { return k.collect(found, &w, rows) }
	if err := k.pinned(ctx, read, sql, by.stream, by.at, after, rows); err != nil {
		return window{}, fmt.Errorf("read published rows: %w", explain(err))
	}
	return w, nil
}

// collect reads a window. With an archive it ends where its bytes do.
func (k *retention) collect(rows pgx.Rows, w *window, limit int) error {
	defer rows.Close()
	read, bytes := 0, 0
	for bytes < k.cfg.PageBytes && rows.Next() {
		var doomed bool
		var e archivedRow
		into := []any{&w.last, &doomed}
		if k.cfg.Archive != nil {
			into = append(into, e.columns()...)
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		read++
		if !doomed {
			continue
		}
		w.doomed = append(w.doomed, w.last)
		if k.cfg.Archive != nil {
			w.events = append(w.events, e.event(w.last))
			bytes += e.size()
		}
	}
	w.end = read < limit && bytes < k.cfg.PageBytes
	rows.Close()
	return rows.Err()
}

// foretell records which messages may soon be without a row. It tells whether
// the term still holds.
func (k *retention) foretell(ctx context.Context, by *limit) (bool, error) {
	if by.through >= by.sequence {
		return true, nil
	}
	err := k.move(ctx, k.lease, k.sql.foretell, by.stream, by.sequence)
	if errors.Is(err, errLeaseLost) {
		return false, nil
	}
	by.through = by.sequence
	return err == nil, err
}

// drop deletes rows, and the anchors before the one that covers them. It
// returns how many rows, negative if neither the term nor the anchor holds.
func (k *retention) drop(ctx context.Context, by *limit, doomed []int64) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.LeaseTTL)
	defer cancel()
	var held bool
	var n int
	err := k.pool.QueryRow(ctx, k.sql.drop, k.lease.holder, k.lease.term, by.stream, by.at, by.sequence, doomed).Scan(&held, &n, nil)
	switch {
	case err != nil:
		return -1, fmt.Errorf("delete published rows: %w", explain(err))
	case !held:
		return -1, nil
	}
	return n, nil
}
