package main

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
)

// newDatabase is a database of this test's own, with our tables.
func newDatabase(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool := dvtest.Postgres(t)
	require.NoError(t, createTables(t.Context(), pool))
	return pool
}

func newOutbox(tb testing.TB) *outbox.Outbox {
	tb.Helper()
	out, err := outbox.New(declared(), outbox.Config{})
	require.NoError(tb, err)
	return out
}

func newInbox(tb testing.TB, pool *pgxpool.Pool) *inbox.Inbox {
	tb.Helper()
	in, err := inbox.New(pool, "plattform", inbox.Config{})
	require.NoError(tb, err)
	return in
}

// serverRoutes are the handlers of maskin's events.
func serverRoutes(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
	return servers{newOutbox(tb)}.routes(newInbox(tb, pool))
}

// drainRoute is the handler of the command, with its task.
func drainRoute(t *testing.T, pool *pgxpool.Pool, move func(context.Context, string, string) error) envelope.Route {
	t.Helper()
	out := newOutbox(t)
	reporter, err := task.NewReporter(pool, out, task.ReporterConfig{})
	require.NoError(t, err)
	return drainer{out, move}.routes(newInbox(t, pool), reporter)[0]
}

// The drafts are constant: what maskin and a caller send about server-1.
var (
	provisioned = maskinevents.ServerProvisioned.New("server-1", maskinevents.ServerProvisionedV1{
		Hostname: "db1.oslo.example", Site: "osl1", Size: "small", Revision: 1,
	})
	larger = maskinevents.ServerResized.New("server-1", maskinevents.ServerResizedV1{Size: "large", Revision: 2})
	drain  = plattformapi.Drain.New("server-1", plattformapi.DrainV1{Reason: "new disks"})
)

func TestServerBecomesANodeOnceAndIsAnnounced(t *testing.T) {
	t.Parallel()
	pool := newDatabase(t)

	m := dvtest.DeliverTwice(t, serverRoutes(t, pool)[0], provisioned)

	got := dvtest.RequireEnqueued(t, pool, plattformapi.NodeRegistered, dvtest.ForResource("server-1"), dvtest.CausedBy(m.Envelope.ID))
	require.Equal(t, plattformapi.NodeRegisteredV1{Hostname: "db1.oslo.example", Site: "osl1"}, got.Data)
	node, err := findNode(t.Context(), pool, "tenant-dvtest", "server-1")
	require.NoError(t, err)
	require.Equal(t, plattformapi.NodeV1{ID: "server-1", Hostname: "db1.oslo.example", Size: "small", State: "ready"}, node)
	_, err = findNode(t.Context(), pool, "another", "server-1")
	require.ErrorIs(t, err, errNoNode)
}

func TestServerWithoutHostnameIsADeadLetterAtOnce(t *testing.T) {
	t.Parallel()
	err := dvtest.Deliver(t, serverRoutes(t, newDatabase(t))[0],
		maskinevents.ServerProvisioned.New("server-1", maskinevents.ServerProvisionedV1{}))
	require.True(t, envelope.IsPermanent(err), "%v", err)
}

func TestServersAreHandledTheSameHoweverTheirEventsCome(t *testing.T) {
	t.Parallel()
	dvtest.Conform(t, dvtest.Conformance{
		Tables: []string{tablesSQL},
		Routes: serverRoutes,
		Messages: []envelope.Draft{
			provisioned, larger,
			maskinevents.ServerResized.New("server-1", maskinevents.ServerResizedV1{Size: "medium", Revision: 3}),
			maskinevents.ServerProvisioned.New("server-2", maskinevents.ServerProvisionedV1{Hostname: "db2", Size: "small", Revision: 1}),
		},
		State: func(tb testing.TB, pool *pgxpool.Pool) any {
			rows, err := pool.Query(tb.Context(), `select concat_ws(' ', id, hostname, size, revision) from node
				union all select concat_ws(' ', subject, ordering_key) from messaging.outbox_events order by 1`)
			require.NoError(tb, err)
			state, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(tb, err)
			return state
		},
	})
}

func TestDrainMovesEveryWorkloadAndReports(t *testing.T) {
	t.Parallel()
	pool := newDatabase(t)
	require.NoError(t, dvtest.Deliver(t, serverRoutes(t, pool)[0], provisioned))
	_, err := pool.Exec(t.Context(), `insert into workload values ('w1', 'server-1'), ('w2', 'server-1')`)
	require.NoError(t, err)
	var mu sync.Mutex
	moved := map[string]string{}
	route := drainRoute(t, pool, func(_ context.Context, workload, key string) error {
		mu.Lock()
		defer mu.Unlock()
		moved[workload] = key
		return nil
	})

	m := dvtest.DeliverTwice(t, route, drain, dvtest.From(subject.Sentral))

	require.Len(t, moved, 2)
	require.Equal(t, envelope.IdempotencyKey("sentral", m.Envelope.ID, "plattform.move.w1"), moved["w1"])
	require.Equal(t, 2, dvtest.RequireEnqueued(t, pool, plattformapi.NodeDrained).Data.Moved)
	dvtest.RequireEnqueued(t, pool, task.Succeeded, dvtest.ForResource(m.Envelope.ID))
	require.NoError(t, dvtest.Deliver(t, route, drain), "a second request finds the node drained")
	dvtest.RequireEnqueued(t, pool, plattformapi.NodeDrained) // still one
}

func TestDrainThatFailsLeavesTheNodeAsItWas(t *testing.T) {
	t.Parallel()
	pool := newDatabase(t)
	require.NoError(t, dvtest.Deliver(t, serverRoutes(t, pool)[0], provisioned))
	_, err := pool.Exec(t.Context(), `insert into workload values ('w1', 'server-1')`)
	require.NoError(t, err)
	broken := errors.New("no room elsewhere")

	err = dvtest.Deliver(t, drainRoute(t, pool, func(context.Context, string, string) error { return broken }), drain)

	require.ErrorIs(t, err, broken)
	require.False(t, envelope.IsPermanent(err))
	node, err := findNode(t.Context(), pool, "tenant-dvtest", "server-1")
	require.NoError(t, err)
	require.Equal(t, "ready", node.State)
	dvtest.RequireNotEnqueued(t, pool, plattformapi.NodeDrained)
}
