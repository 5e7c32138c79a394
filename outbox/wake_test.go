package outbox_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/outbox"
)

func TestSleepingRelayIsWokenByACommit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.out.TrustFor(0)
	b.relay(t, outbox.RelayConfig{PollInterval: time.Minute})
	for n := range 3 {
		requireAsleep(t, b, true)
		b.enqueue(t, "a", n+1)
		b.requireStored(t, "DV_MASKIN_EVT", uint64(n+1))
	}
}

func requireAsleep(t *testing.T, b bundle, want bool) {
	t.Helper()
	require.Eventually(t, func() (asleep bool) {
		err := b.pool.QueryRow(t.Context(), "select to_timestamp(last_value) > clock_timestamp() from messaging.outbox_asleep_until").Scan(&asleep)
		return err == nil && asleep == want
	}, 20*time.Second, time.Millisecond)
}

// NOTIFY takes a lock that all commits share, so only a relay that sleeps and
// lives is worth one.
func TestWritersNotifyOnlyARelayThatSleeps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, until string
		pollOnly    bool
		want        int
	}{
		{"never started", "null", false, 0},
		{"awake", "0", false, 0},
		{"asleep", "extract(epoch from now())::bigint + 60", false, 1},
		{"dead in its sleep", "extract(epoch from now())::bigint - 1", false, 0},
		{"poll only", "extract(epoch from now())::bigint + 60", true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := dvtest.Postgres(t)
			_, err := pool.Exec(t.Context(), "select setval('messaging.outbox_asleep_until', "+c.until+")")
			require.NoError(t, err)
			heard := listenTo(t, bundle{pool: pool})
			out, err := outbox.New(maskinSet, outbox.Config{PollOnly: c.pollOnly})
			require.NoError(t, err)
			err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				return out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{}), serverCounted.New("b", counted{}))
			})
			require.NoError(t, err)
			heard.require(t, c.want)
		})
	}
}

// Who looked at the mark before it was written, and commits after the relay's
// second look, notifies nobody. The slow poll finds the message.
func TestCommitAfterTheSecondLookWaitsForTheSlowPoll(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.enqueue(t, "a", 1)
	r := b.newRelay(t, outbox.RelayConfig{PollInterval: 100 * time.Millisecond, ProbeInterval: 10 * time.Minute})
	r.LingerFor(0)
	var polls atomic.Int64
	r.OnPolled(func() { polls.Add(1) })
	run(t, r)
	b.requireStored(t, "DV_MASKIN_EVT", 1)
	requireAsleep(t, b, true)
	_, err := b.pool.Exec(t.Context(), "select setval('messaging.outbox_asleep_until', 0)") // as it was before the relay's first look
	require.NoError(t, err)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "a", N: 2})))
	seen := polls.Load()
	require.Eventually(t, func() bool { return polls.Load() > seen+1 }, 20*time.Second, time.Millisecond) // the second look
	require.NoError(t, tx.Commit(t.Context()))
	b.requireStored(t, "DV_MASKIN_EVT", 2)
}

// In a busy service nearly every writer would look for nothing.
func TestAConnectionThatSawTheRelayAwakeDoesNotLookForAWhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	heard, enqueue := listenTo(t, b), b.onOneConnection(t)
	b.out.TrustFor(time.Hour)
	enqueue()
	_, err := b.pool.Exec(t.Context(), "select setval('messaging.outbox_asleep_until', extract(epoch from now())::bigint + 60)")
	require.NoError(t, err)
	enqueue()
	heard.require(t, 0)
	b.onOneConnection(t)() // another one
	heard.require(t, 1)
}

// onOneConnection returns a function that enqueues an event in a transaction of its
// own, always on the same connection.
func (b bundle) onOneConnection(t *testing.T) (enqueue func()) {
	t.Helper()
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	t.Cleanup(conn.Release)
	return func() {
		t.Helper()
		require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			return b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "a", N: 1}))
		}))
	}
}

// An outbox that polls only has not looked at the mark, and one of other tables has
// looked at another.
func TestAConnectionTrustsWhatWasSeenForTheSameOutboxOnly(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{Schema: "other"}))
	_, err := pool.Exec(t.Context(), "select setval('messaging.outbox_asleep_until', extract(epoch from now())::bigint + 60)")
	require.NoError(t, err)
	heard := listenTo(t, bundle{pool: pool})
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for _, cfg := range []outbox.Config{{PollOnly: true}, {Schema: "other"}, {}} {
		out, err := outbox.New(maskinSet, cfg)
		require.NoError(t, err)
		out.TrustFor(time.Hour)
		require.NoError(t, pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			return out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "a", N: 1}))
		}))
	}
	heard.require(t, 1)
}

// A look that found the relay asleep may be rolled back, and the notification with it.
func TestAConnectionLooksAgainAfterItSawTheRelayAsleep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	heard := listenTo(t, b)
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = b.pool.Exec(t.Context(), "select setval('messaging.outbox_asleep_until', extract(epoch from now())::bigint + 60)")
	require.NoError(t, err)
	b.out.TrustFor(time.Hour)
	rollback := errors.New("rolled back")
	for _, outcome := range []error{rollback, nil, nil} {
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			require.NoError(t, b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "a", N: 1})))
			return outcome
		})
		require.ErrorIs(t, err, outcome)
	}
	heard.require(t, 2)
}

// Whoever trusted that the relay is awake, and was wrong, has not notified it.
func TestARelayThatSaysItSleepsGoesOnPolling(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{PollInterval: time.Minute, ProbeInterval: 10 * time.Minute})
	r.LingerFor(time.Hour)
	b.out.TrustFor(time.Hour)
	var polls atomic.Int64
	r.OnPolled(func() { polls.Add(1) })
	heard, enqueue := listenTo(t, b), b.onOneConnection(t)
	enqueue()
	run(t, r)
	b.requireStored(t, "DV_MASKIN_EVT", 1)
	requireAsleep(t, b, true)
	seen := polls.Load()
	require.Eventually(t, func() bool { return polls.Load() > seen+1 }, 20*time.Second, time.Millisecond) // the second look, and more
	enqueue()
	b.requireStored(t, "DV_MASKIN_EVT", 2)
	heard.require(t, 0) // last, for it notifies
}

// Who commits while a look goes on is not seen by it, however long it takes.
func TestARelayThatSaysItSleepsLooksOnceMoreAfterALongLook(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{PollInterval: time.Minute, ProbeInterval: 10 * time.Minute})
	const linger = 2 * time.Second
	r.LingerFor(linger)
	b.out.TrustFor(time.Hour)
	heard, enqueue := listenTo(t, b), b.onOneConnection(t)
	enqueue()
	looked := make(chan struct{})
	wait, open := barrier(t)
	still := sync.OnceFunc(func() { close(looked); wait() })
	r.OnPolled(func() {
		var asleep bool
		err := b.pool.QueryRow(t.Context(), "select to_timestamp(last_value) > clock_timestamp() from messaging.outbox_asleep_until").Scan(&asleep)
		if err == nil && asleep {
			still()
		}
	})
	run(t, r)
	<-looked
	began := time.Now()
	enqueue()
	require.Eventually(t, func() bool { return time.Since(began) > linger }, 20*time.Second, time.Millisecond)
	open()
	b.requireStored(t, "DV_MASKIN_EVT", 2)
	heard.require(t, 0) // last, for it notifies
}

// A transaction whose snapshot is older than the mark sees it all the same,
// since a sequence has no versions, and wakes the relay.
func TestTransactionWithAnOldSnapshotWakesTheRelay(t *testing.T) {
	t.Parallel()
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			heard := listenTo(t, b)
			tx, err := b.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
			require.NoError(t, err)
			defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
			_, err = tx.Exec(t.Context(), "select from messaging.outbox_events") // takes the snapshot
			require.NoError(t, err)

			b.relay(t, outbox.RelayConfig{PollInterval: 100 * time.Millisecond, ProbeInterval: 10 * time.Minute})
			requireAsleep(t, b, true)
			b.enqueue(t, "b", 1)
			b.requireStored(t, "DV_MASKIN_EVT", 1)
			requireAsleep(t, b, true)
			heard.require(t, 1)
			require.NoError(t, b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "a", N: 1})))
			require.NoError(t, tx.Commit(t.Context()))
			b.requireStored(t, "DV_MASKIN_EVT", 2)
			heard.require(t, 1)
		})
	}
}

// listener hears the notifications of all writers.
type listener struct{ conn *pgx.Conn }

func listenTo(t *testing.T, b bundle) listener {
	t.Helper()
	pooled, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	t.Cleanup(pooled.Release)
	_, err = pooled.Exec(t.Context(), "listen dv_outbox")
	require.NoError(t, err)
	return listener{pooled.Conn()}
}

// require checks how many notifications came since it was asked last.
func (l listener) require(t *testing.T, want int) {
	t.Helper()
	_, err := l.conn.Exec(t.Context(), "select pg_notify('dv_outbox', 'end')")
	require.NoError(t, err)
	got := 0
	for {
		n, err := l.conn.WaitForNotification(t.Context())
		require.NoError(t, err)
		if n.Payload == "end" {
			break
		}
		got++
	}
	require.Equal(t, want, got)
}

// PostgreSQL refuses PREPARE TRANSACTION after NOTIFY, so two-phase writers use
// PollOnly; what they prepared is published when it is committed.
func TestTwoPhaseTransactionIsPublishedWhenItIsCommitted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	out, err := outbox.New(maskinSet, outbox.Config{PollOnly: true})
	require.NoError(t, err)
	b.out = out
	b.relay(t, outbox.RelayConfig{})
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "a", N: 1})))
	name := "two-phase-" + conn.Conn().Config().Database
	_, err = conn.Exec(t.Context(), "prepare transaction '"+name+"'")
	require.NoError(t, err)
	b.enqueue(t, "b", 1)
	b.requireStored(t, "DV_MASKIN_EVT", 1) // later messages do not wait for it
	_, err = conn.Exec(context.WithoutCancel(t.Context()), "commit prepared '"+name+"'")
	require.NoError(t, err)
	b.requireStored(t, "DV_MASKIN_EVT", 2)
}
