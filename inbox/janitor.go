package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

// Janitor forgets messages that cannot come again, so that the inbox does not
// grow without bound (requirement I8). Make it with [NewJanitor] and run it
// beside the consumers, in every replica: one of them works at a time.
//
// What has a version 7 id lies in partitions by the age of the id, and a
// partition is truncated once nothing in it was handled within the horizon. That
// takes milliseconds, whatever the number of rows, and holds no lock that a
// handler of a recent message waits for. What has another id is deleted in batches
// with pauses between them, and so are the attempts of messages (inbox_attempts)
// that nobody touched within the horizon: a message that was never done, because
// its stream or its consumer is gone.
//
// Sweep and Stats are safe for concurrent use; Run is called once.
type Janitor struct {
	pool   *pgxpool.Pool
	cfg    JanitorConfig
	holder string
	sql    sweepStatements
	log    *slog.Logger
	ran    atomic.Bool

	mu    sync.Mutex
	stats JanitorStats
}

// Swept is what one pass over the partitions did.
type Swept struct {
	Emptied  int   // partitions that were truncated
	Deleted  int64 // rows that were deleted one by one
	Archived int64 // rows that Archive was shown
	// Forgotten counts the rows of inbox_attempts, and with
	// JanitorConfig.KeepVersions of inbox_versions, that were deleted.
	Forgotten int64
}

// JanitorStats is what a Janitor of this process did so far. Other replicas have
// their own; the database's is in inbox_janitor.swept_at.
type JanitorStats struct {
	Swept               // sums
	LastSweep time.Time // end of the last pass without a fault; zero before
	Oldest    time.Time // handling time of the oldest row when a pass last began; zero if there was none
	Err       error     // of the last pass; nil if there was none
}

// ErrSweeping: another Janitor works on the partitions, or one died at it less
// than 10 minutes ago. There is nothing to do.
var ErrSweeping = errors.New("inbox: sweep: another janitor is at work")

// Stats returns what was done so far.
func (j *Janitor) Stats() JanitorStats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.stats
}

// Run cleans every Interval until ctx ends, and returns nil then. A fault is
// logged, shown in Stats, and tried again after a growing delay.
//
// The role needs SELECT, DELETE and TRUNCATE on the partitions of inbox_messages,
// SELECT and DELETE on inbox_attempts, and on inbox_versions where KeepVersions is
// set, and SELECT, INSERT and UPDATE on inbox_janitor.
func (j *Janitor) Run(ctx context.Context) error {
	if !j.ran.CompareAndSwap(false, true) {
		return errors.New("inbox: Janitor.Run: called twice; create a new Janitor")
	}
	retry := backoff.Policy{Initial: time.Second, Max: j.cfg.Interval}
	for failures := 0; ctx.Err() == nil; {
		pause := j.cfg.Interval
		// Half the interval, so that a replica's own ticks are never too early.
		if _, err := j.sweep(ctx, j.cfg.Interval/2); err != nil && ctx.Err() == nil && !errors.Is(err, ErrSweeping) {
			failures++
			pause = retry.Delay(failures)
			j.log.Warn("inbox: old messages stay", "error", err, "again_in", pause)
		} else {
			failures = 0
		}
		sleep.For(ctx, pause)
	}
	return nil
}

// Sweep makes one pass over all partitions now, however recent the last one is:
// for a scheduled job in place of Run. It returns ErrSweeping while another
// Janitor is at it. The fault of one partition does not keep it from the others.
func (j *Janitor) Sweep(ctx context.Context) (Swept, error) { return j.sweep(ctx, 0) }

// sweep makes a pass unless the last one ended less than a time ago.
func (j *Janitor) sweep(ctx context.Context, unless time.Duration) (Swept, error) {
	if err := j.acquire(ctx, unless); err != nil {
		return Swept{}, err
	}
	s := &sweep{Janitor: j}
	err := s.run(ctx)
	if releaseErr := j.release(ctx, err == nil); releaseErr != nil {
		err = errors.Join(err, releaseErr)
	}
	j.note(s, err)
	return s.done, err
}

func (j *Janitor) note(s *sweep, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats.Emptied += s.done.Emptied
	j.stats.Deleted += s.done.Deleted
	j.stats.Archived += s.done.Archived
	j.stats.Forgotten += s.done.Forgotten
	j.stats.Oldest, j.stats.Err = s.oldest, err
	if err == nil {
		j.stats.LastSweep = time.Now()
	}
}

// leaseTTL is for how long one instance has the partitions to itself without
// renewing: longer than a call of the archive. Two at once would be no harm, only
// twice the work.
const leaseTTL = 2 * archiveTimeout

// statementTimeout bounds every statement.
const statementTimeout = time.Minute

// acquire takes the lease, or returns ErrSweeping.
func (j *Janitor) acquire(ctx context.Context, unless time.Duration) error {
	return j.hold(ctx, j.sql.acquire, j.holder, leaseTTL, unless)
}

// renew keeps the lease before each step.
func (j *Janitor) renew(ctx context.Context) error {
	return j.hold(ctx, j.sql.renew, j.holder, leaseTTL)
}

func (j *Janitor) hold(ctx context.Context, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	tag, err := j.pool.Exec(ctx, sql, args...)
	switch {
	case err != nil:
		return fmt.Errorf("inbox: sweep: hold the lease: %w", explain(err))
	case tag.RowsAffected() == 0:
		return ErrSweeping
	}
	return nil
}

// release gives the lease back, also when ctx has ended, and notes the end of a
// complete pass.
func (j *Janitor) release(ctx context.Context, complete bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if _, err := j.pool.Exec(ctx, j.sql.release, j.holder, complete); err != nil {
		return fmt.Errorf("inbox: sweep: give the lease back: %w", err)
	}
	return nil
}
