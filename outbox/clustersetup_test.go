package outbox_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/outbox"
)

// elsewhere is constant once it is started: a cluster with an identity of its
// own, which the tests share.
var elsewhere = sync.OnceValues(func() (*pgserver.Server, error) {
	return pgserver.Start(context.Background(), pgserver.Options{})
})

var elsewheres atomic.Int64 // databases in it

// twoClusters returns b and an empty database in another cluster: old is where a
// dump is made, and young, whose transaction ids are lower or higher, where it is
// restored.
//
// All tests share both clusters, so the cluster of b is the one that is ahead,
// always: a test that pushed the other one past it would leave a test beside it
// without rows that look new, waiting for a step that never comes.
func (b bundle) twoClusters(t *testing.T, higher bool) (old, young bundle) {
	t.Helper()
	other := b.anotherCluster(t)
	b.ahead(t, other)
	if higher {
		return other, b
	}
	return b, other
}

// anotherCluster returns b with an empty database in another cluster.
func (b bundle) anotherCluster(t *testing.T) bundle {
	t.Helper()
	server, err := elsewhere()
	require.NoError(t, err)
	name := fmt.Sprintf("elsewhere_%d", elsewheres.Add(1))
	admin, err := pgx.Connect(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "create database "+name)
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	pool, err := pgxpool.New(t.Context(), server.URL(name))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
	b.pool = pool
	return b
}

// burn uses up transaction ids.
func (b bundle) burn(t *testing.T, n int) {
	t.Helper()
	b.exec(t, "create table if not exists burnt (n int)")
	b.exec(t, fmt.Sprintf(`do $$ begin
  for i in 1..%d loop
    begin insert into burnt values (i); raise exception 'no'; exception when others then end;
  end loop;
end $$`, n))
}

// ahead makes this cluster's transaction ids higher than the other's. See
// twoClusters for which one it may be.
func (b bundle) ahead(t *testing.T, of bundle) {
	t.Helper()
	next := func(b bundle) (n int) {
		require.NoError(t, b.pool.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&n))
		return n
	}
	if n := next(of) - next(b); n > -20_000 {
		b.burn(t, n+20_000)
	}
}

// dumped are the tables of an outbox as pg_dump reads them: in one snapshot. The
// sequence is read beside it.
var dumped = []string{
	"outbox_events", "outbox_state", "outbox_anchors", "outbox_parked", "outbox_discarded", "outbox_rewinds",
	"outbox_lease", "outbox_alive", "outbox_foreign",
}

// dump returns what restores the outbox as it is now in another database.
func (b bundle) dump(t *testing.T) (restore func(into bundle, sequence bool)) {
	t.Helper()
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "begin isolation level repeatable read read only")
	require.NoError(t, err)
	data := map[string]*bytes.Buffer{}
	for _, table := range dumped {
		data[table] = &bytes.Buffer{}
		_, err := conn.Conn().PgConn().CopyTo(t.Context(), data[table], "copy messaging."+table+" to stdout")
		require.NoError(t, err)
	}
	_, err = conn.Exec(t.Context(), "commit")
	require.NoError(t, err)
	var last int64
	require.NoError(t, b.pool.QueryRow(t.Context(), "select last_value from messaging.outbox_events_seq_seq").Scan(&last))
	return func(into bundle, sequence bool) {
		conn, err := into.pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
		for _, table := range dumped {
			_, err := conn.Exec(t.Context(), "truncate messaging."+table)
			require.NoError(t, err)
			_, err = conn.Conn().PgConn().CopyFrom(t.Context(), data[table], "copy messaging."+table+" from stdin")
			require.NoError(t, err)
		}
		if sequence {
			into.exec(t, "select setval('messaging.outbox_events_seq_seq', $1)", last)
		}
	}
}

// publishAll publishes n events, and two more in two moves of the cursor: after
// those its floor lies behind the n.
func (b bundle) publishAll(t *testing.T, counter map[string]int, n int) {
	t.Helper()
	stop := b.relay(t, outbox.RelayConfig{})
	for _, n := range []int{n - 2, 1, 1} {
		b.enqueueCounted(t, counter, n)
		b.requireDrained(t)
	}
	stop()
}

// barrier returns what keeps others waiting, and what lets them go; the end of the
// test does, too.
func barrier(t *testing.T) (wait, open func()) {
	opened, ended := make(chan struct{}), t.Context().Done()
	wait = func() {
		select {
		case <-opened:
		case <-ended:
		}
	}
	return wait, sync.OnceFunc(func() { close(opened) })
}

// requireOwn waits until all rows have transaction ids of their own cluster.
func (b bundle) requireOwn(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		var own bool
		require.NoError(t, b.pool.QueryRow(t.Context(), `
select not exists (select from messaging.outbox_events where xid >= pg_snapshot_xmax(pg_current_snapshot()))
   and not exists (select from messaging.outbox_state, pg_control_system() c where outbox_state.system_identifier <> c.system_identifier)`).Scan(&own))
		return own && !b.status(t).Foreign
	}, 20*time.Second, 5*time.Millisecond, "the take-over does not end")
}

// firsts returns for each key the numbers in the order in which they were stored
// first.
func (b bundle) firsts(t *testing.T) map[string][]int {
	t.Helper()
	firsts := map[string][]int{}
	seen := map[counted]bool{}
	for _, c := range published(t, b.js, events) {
		if !seen[c] {
			seen[c] = true
			firsts[c.Key] = append(firsts[c.Key], c.N)
		}
	}
	return firsts
}

func (b bundle) requireFirsts(t *testing.T, totals map[string]int) {
	t.Helper()
	got := b.firsts(t)
	for key, n := range totals {
		require.Equal(t, numbers(1, n), got[key], "key %s", key)
	}
}
