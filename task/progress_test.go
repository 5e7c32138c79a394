package task_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/task"
)

// However much a handler says, one event goes out in an interval, and what it said
// last is not lost.
func TestProgressIsPublishedOnceInAnIntervalAndTheLastIsKept(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	require.NoError(t, deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		for i := range 1000 {
			task.FromContext(ctx).Progress(i/10, fmt.Sprintf("disk %d", i))
		}
		// The first is seen by others while the handler's transaction is open.
		require.Eventually(t, func() bool { return len(events(t, w.pool, m.Envelope.ID)) == 2 }, soon, tick)
		for i := range 1000 {
			task.FromContext(ctx).Progress(i/10, fmt.Sprintf("disk %d again", i))
		}
		return nil
	}), m))
	all := events(t, w.pool, m.Envelope.ID)
	require.Equal(t, []string{"started 3", "progress 4", "succeeded 5"}, life(all))
	require.Equal(t, "disk 999 again", all[2].Message)
	require.Equal(t, 99, *all[2].Percent)
}

// Said in the middle of an interval, it goes out at its end without more ado.
func TestTheNewestProgressFollowsAfterTheInterval(t *testing.T) {
	t.Parallel()
	w, m := setup(t, 20*time.Millisecond), command(t)
	require.NoError(t, deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		for i := range 100 {
			task.FromContext(ctx).Progress(i, "")
		}
		require.Eventually(t, func() bool {
			all := events(t, w.pool, m.Envelope.ID)
			return len(all) > 0 && all[len(all)-1].verb == "progress" && *all[len(all)-1].Percent == 99
		}, soon, tick)
		task.FromContext(ctx).Progress(-1, strings.Repeat("é", 1000)+"\x00\n")
		return nil
	}), m))
	all := events(t, w.pool, m.Envelope.ID)
	last := all[len(all)-1]
	require.Nil(t, last.Percent)
	require.LessOrEqual(t, len(last.Message), 512)
	require.True(t, strings.HasSuffix(last.Message, "é…"))
}

// Progress needs the database for a moment while the handler holds a connection: a
// pool without a free one must not stop anybody.
func TestAHandlerNeverWaitsForItsProgress(t *testing.T) {
	t.Parallel()
	w, m := setup(t, 10*time.Millisecond), command(t)
	require.NoError(t, deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		var held []interface{ Release() }
		for range w.pool.Config().MaxConns - 1 { // all but the handler's own
			conn, err := w.pool.Acquire(ctx)
			if err != nil {
				return err
			}
			held = append(held, conn)
		}
		defer func() {
			for _, conn := range held {
				conn.Release()
			}
		}()
		task.FromContext(ctx).Progress(50, "half")
		return nil
	}), m))
	all := events(t, w.pool, m.Envelope.ID)
	last := all[len(all)-1]
	require.Equal(t, "succeeded", last.verb)
	require.Equal(t, "half", last.Message)
}

// Progress changes nothing that has an index: PostgreSQL then neither writes to one nor
// leaves anything in it to be cleaned up.
func TestProgressLeavesTheIndexesOfARunAlone(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	require.NoError(t, deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		task.FromContext(ctx).LeaveOpen()
		return nil
	}), m))
	changed := func() (at time.Time) {
		require.NoError(t, w.pool.QueryRow(t.Context(), `select updated_at from messaging.task_runs where task_id = $1`, m.Envelope.ID).Scan(&at))
		return at
	}
	begun := changed()
	report := func(do func(context.Context, pgx.Tx) error) {
		require.NoError(t, pgx.BeginFunc(request(t), w.pool, func(tx pgx.Tx) error { return do(request(t), tx) }))
	}
	report(func(ctx context.Context, tx pgx.Tx) error {
		return w.reporter.Progress(ctx, tx, m.Envelope.ID, 50, "half")
	})
	require.Equal(t, begun, changed())
	report(func(ctx context.Context, tx pgx.Tx) error { return w.reporter.Succeed(ctx, tx, m.Envelope.ID, nil) })
	require.True(t, changed().After(begun))
}
