package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

// lease is one term of leadership.
//
// The row holds database time, so clocks of hosts do not matter. The leader
// trusts its lease from the start of the request that got it, which is never
// later than what the database wrote. The term fences: every write of a cursor
// locks the lease row and checks holder and term, so that an instance that
// slept past its lease and wakes moves nothing. What such an instance still
// publishes is a duplicate, which the stream's window or the inbox absorbs.
type lease struct {
	holder string
	term   int64
	until  time.Time // trusted until, local monotonic clock
}

// acquire takes the lease if nobody holds it, or if it is our own from an
// earlier term that a fault ended. It returns nil where another instance leads.
func (r *Relay) acquire(ctx context.Context) (*lease, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.LeaseTTL)
	defer cancel()
	asked := time.Now()
	l := &lease{holder: r.cfg.Holder, until: asked.Add(r.cfg.LeaseTTL)}
	err := r.pool.QueryRow(ctx, r.sql.acquire, r.cfg.Holder, r.cfg.LeaseTTL).Scan(&l.term)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("acquire the lease: %w", explain(err))
	}
	return l, nil
}

// renew keeps the lease until ctx ends, and calls lost when it cannot.
//
// A failed request is tried again while the lease is trusted: one slow answer
// must not cost the leadership.
func (r *Relay) renew(ctx context.Context, l *lease, lost func(error)) {
	pause := r.cfg.LeaseTTL / 3
	until := l.until
	for {
		if sleep.For(ctx, pause); ctx.Err() != nil {
			return
		}
		asked := time.Now()
		held, err := r.renewOnce(ctx, l, until)
		switch {
		case err == nil && held:
			until, pause = asked.Add(r.cfg.LeaseTTL), r.cfg.LeaseTTL/3
		case err == nil:
			lost(fmt.Errorf("%w: another instance took over", errLeaseLost))
			return
		case time.Now().After(until):
			lost(fmt.Errorf("%w: it could not be renewed in time: %w", errLeaseLost, err))
			return
		default:
			pause = r.cfg.LeaseTTL / 20
		}
	}
}

func (r *Relay) renewOnce(ctx context.Context, l *lease, until time.Time) (bool, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	tag, err := r.pool.Exec(ctx, r.sql.renew, l.holder, l.term, r.cfg.LeaseTTL)
	return tag.RowsAffected() == 1, err
}

// release lets the next instance lead at once. It is best effort: an
// unreleased lease runs out by itself.
func (r *Relay) release(ctx context.Context, l *lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.LeaseTTL/2)
	defer cancel()
	if _, err := r.pool.Exec(ctx, r.sql.release, l.holder, l.term); err != nil {
		r.log.Warn("lease not released, it runs out by itself", "term", l.term, "reason", err)
	}
}
