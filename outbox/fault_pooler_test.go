package outbox_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// Behind a transaction pooler nothing of a session is kept from one statement to
// the next. With PollOnly everything works there: writers, the lease and its
// hand-over, deltas, walks whose pages need a pinned plan, and healing.
func TestOutboxWorksThroughATransactionPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			f := setupFrail(t)
			p := startPooler(t, f.pool, 3)
			out, err := outbox.New(maskinSet, outbox.Config{PollOnly: true})
			require.NoError(t, err)
			f.bundle = bundle{pool: p.pool(t, mode), js: f.js, out: out}
			requireNoSession(t, f.bundle)

			stop := f.relay(t, outbox.RelayConfig{Holder: "a", LeaseTTL: time.Second, PageRows: 20})
			requireLeader(t, f.bundle, "a")
			f.relay(t, outbox.RelayConfig{Holder: "b", LeaseTTL: time.Second, PageRows: 20})
			counter := map[string]int{}
			f.enqueueEach(t, counter, 5) // deltas of one row
			for range 3 {
				f.enqueueOnKeys(t, counter, 50) // walks
			}
			f.requireDrained(t)
			requireLeader(t, f.bundle, "a") // it renewed its lease
			stop()
			f.enqueueOnKeys(t, counter, 50)
			requireLeader(t, f.bundle, "b")
			f.requireDrained(t)
			f.requireExact(t, counter)

			f.save(t)
			f.enqueueOnKeys(t, counter, 50)
			f.requireDrained(t)
			f.lose(t, func() { f.enqueueOnKeys(t, counter, 50) })
			f.requireAllThere(t, counter)
			f.requireDrained(t)
			require.EqualValues(t, 1, f.status(t).Rewinds)
			require.Zero(t, p.listens.Load(), "LISTEN does not work through a pooler")
			t.Logf("%d transactions on 3 connections", p.transactions.Load())
		})
	}
}

// requireNoSession makes sure that the pooler is one: two statements on one
// connection meet two servers' processes, and no setting stays.
func requireNoSession(t *testing.T, b bundle) {
	t.Helper()
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	pids := map[int]bool{}
	for range 3 {
		var pid int
		var setting string
		require.NoError(t, conn.QueryRow(t.Context(), "select pg_backend_pid(), current_setting('application_name')").Scan(&pid, &setting))
		require.NotEqual(t, "kept", setting)
		pids[pid] = true
		_, err := conn.Exec(t.Context(), "set application_name = 'kept'")
		require.NoError(t, err)
	}
	require.Greater(t, len(pids), 1)
	err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error { // but a transaction stays where it began
		var first, second int
		require.NoError(t, tx.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&first))
		require.NoError(t, tx.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&second))
		require.Equal(t, first, second)
		return nil
	})
	require.NoError(t, err)
}
