package dvtest_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
)

// applied is a handler with the inbox's transaction.
type applied func(context.Context, pgx.Tx, received) error

// withInbox makes a route over an inbox of its own.
func withInbox(tb testing.TB, pool *pgxpool.Pool, h applied) []envelope.Route {
	in, err := inbox.New(pool, "conforming", inbox.Config{})
	require.NoError(tb, err)
	return []envelope.Route{inbox.On(in, ServerProvisioned, h)}
}

// renames concern two servers; the last of each wins.
func renames() []envelope.Draft {
	var drafts []envelope.Draft
	for _, host := range []string{"a", "b", "c"} {
		for _, id := range []string{"server-1", "server-2"} {
			drafts = append(drafts, ServerProvisioned.New(id, ServerProvisionedV1{Hostname: id + host}))
		}
	}
	return drafts
}

// conformance is a suite over the table node, and a table of counts.
func conformance(routes func(testing.TB, *pgxpool.Pool) []envelope.Route) dvtest.Conformance {
	return dvtest.Conformance{
		Tables:   []string{"create table node (id text primary key, hostname text, n int not null default 0)", "create table visit (id text)"},
		Routes:   routes,
		Messages: renames(),
		State:    stateOfNodes,
	}
}

// stateOfNodes reads every node, with its count.
func stateOfNodes(tb testing.TB, pool *pgxpool.Pool) any {
	rows, err := pool.Query(tb.Context(), "select id, hostname, n from node order by id")
	require.NoError(tb, err)
	type node struct {
		ID, Hostname string
		N            int
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[node])
	require.NoError(tb, err)
	return all
}

const (
	countUp = "insert into node as x (id, hostname, n) values ($1, '', 1) on conflict (id) do update set n = x.n + 1"
	rename  = "insert into node as x (id, hostname) values ($1, $2) on conflict (id) do update set hostname = $2"
	highest = "insert into node as x (id, hostname) values ($1, $2) on conflict (id) do update set hostname = greatest(x.hostname, $2)"
)

// The suite's own example: two types, one of which needs the other to be there,
// and an event that follows.
func TestHandlersThatConformPass(t *testing.T) {
	t.Parallel()
	dvtest.Conform(t, conformance(func(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
		out := newOutbox(tb, plattform, outbox.Config{})
		return withInbox(tb, pool, func(ctx context.Context, tx pgx.Tx, m received) error {
			if _, err := tx.Exec(ctx, countUp, m.Envelope.Subject); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, highest, m.Envelope.Subject, m.Data.Hostname); err != nil {
				return err
			}
			return out.Enqueue(ctx, tx, NodeRegistered.New(m.Envelope.Subject, m.Data))
		})
	}))
}

// Messages of version 1, at a handler of version 2 that is given them carried forward.
func TestHandlersOfANewerVersionConform(t *testing.T) {
	t.Parallel()
	dvtest.Conform(t, conformance(func(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
		in, err := inbox.New(pool, "conforming", inbox.Config{})
		require.NoError(tb, err)
		return []envelope.Route{inbox.On(in, upcasting, func(ctx context.Context, tx pgx.Tx, m envelope.Received[ServerProvisionedV2]) error {
			_, err := tx.Exec(ctx, highest, m.Envelope.Subject, m.Data.Hostname)
			return err
		})}
	}))
}

// In ordered mode the last message of a key wins.
func TestHandlersThatRelyOnKeyOrderPassWithIt(t *testing.T) {
	t.Parallel()
	c := conformance(renaming)
	dvtest.ConformIn(t, withKeyOrder(c), "out of order")
	requireSays(t, failure(t, func(tb testing.TB) { dvtest.ConformIn(tb, c, "out of order") }), "out of order: the state differs")
}

func withKeyOrder(c dvtest.Conformance) dvtest.Conformance {
	c.KeyOrder = true
	return c
}

func renaming(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
	return withInbox(tb, pool, func(ctx context.Context, tx pgx.Tx, m received) error {
		_, err := tx.Exec(ctx, rename, m.Envelope.Subject, m.Data.Hostname)
		return err
	})
}

// A message that comes before what it needs asks for a retry and gets it.
func TestRetryIsGivenAfterTheOthers(t *testing.T) {
	t.Parallel()
	c := conformance(func(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
		return withInbox(tb, pool, func(ctx context.Context, tx pgx.Tx, m received) error {
			if m.Data.Hostname != m.Envelope.Subject+"a" {
				var n int
				if err := tx.QueryRow(ctx, "select count(*) from node where id = $1", m.Envelope.Subject).Scan(&n); err != nil || n == 0 {
					return errors.Join(err, errors.New("the server is not known yet"))
				}
			}
			_, err := tx.Exec(ctx, countUp, m.Envelope.Subject)
			return err
		})
	})
	dvtest.ConformIn(t, c, "out of order")
}

// Each way of delivery finds the fault that it is there for.
func TestHandlersThatDoNotConformFail(t *testing.T) {
	t.Parallel()
	// stateless runs a handler on the pool.
	stateless := func(h func(context.Context, *pgxpool.Pool, received) error) func(testing.TB, *pgxpool.Pool) []envelope.Route {
		return func(_ testing.TB, pool *pgxpool.Pool) []envelope.Route {
			return []envelope.Route{consumer.On(ServerProvisioned, func(ctx context.Context, m received) error { return h(ctx, pool, m) })}
		}
	}
	counting := func(ctx context.Context, pool *pgxpool.Pool, m received) error {
		_, err := pool.Exec(ctx, countUp, m.Envelope.Subject)
		return err
	}
	for name, row := range map[string]struct {
		routes func(testing.TB, *pgxpool.Pool) []envelope.Route
		finds  []string
		says   string
	}{
		"counts without an inbox": {stateless(counting),
			[]string{"delivered twice", "delivered at once", "crash before commit", "crash after commit", "late", "replayed"}, "the state differs"},
		"effect outside the transaction": {func(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
			return withInbox(tb, pool, func(ctx context.Context, _ pgx.Tx, m received) error { return counting(ctx, pool, m) })
		}, []string{"crash before commit"}, "the state differs"},
		"remembers in memory": {func(_ testing.TB, pool *pgxpool.Pool) []envelope.Route {
			var mu sync.Mutex
			seen := map[string]bool{}
			return []envelope.Route{consumer.On(ServerProvisioned, func(ctx context.Context, m received) error {
				mu.Lock()
				defer mu.Unlock()
				if seen[m.Envelope.ID] {
					return envelope.ErrAlreadyProcessed
				}
				seen[m.Envelope.ID] = true
				return counting(ctx, pool, m)
			})}
		}, []string{"delivered at once", "crash after commit", "late"}, "the state differs"},
		"does what is replayed again": {func(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
			return withInbox(tb, pool, func(ctx context.Context, tx pgx.Tx, m received) error {
				if m.LetterID != "" {
					return errors.New("no replays")
				}
				return counting(ctx, pool, m)
			})
		}, []string{"replayed"}, "the replay of maskin.server.provisioned"},
		"refuses what comes early for good": {func(tb testing.TB, pool *pgxpool.Pool) []envelope.Route {
			return withInbox(tb, pool, func(ctx context.Context, tx pgx.Tx, m received) error {
				tag, err := tx.Exec(ctx, "update node set hostname = $2 where id = $1", m.Envelope.Subject, m.Data.Hostname)
				if err == nil && tag.RowsAffected() == 0 && m.Data.Hostname != m.Envelope.Subject+"a" {
					return envelope.Permanent(errors.New("unknown server"))
				}
				if err == nil && tag.RowsAffected() == 0 {
					_, err = tx.Exec(ctx, rename, m.Envelope.Subject, m.Data.Hostname)
				}
				return err
			})
		}, []string{"out of order"}, "would become a dead letter: unknown server"},
	} {
		for _, scenario := range row.finds {
			t.Run(name+"/"+scenario, func(t *testing.T) {
				t.Parallel()
				requireSays(t, failure(t, func(tb testing.TB) { dvtest.ConformIn(tb, conformance(row.routes), scenario) }), row.says)
			})
		}
	}
}

// A suite that could not fail says so.
func TestConformanceWithoutAnEffectFails(t *testing.T) {
	t.Parallel()
	c := conformance(renaming)
	c.State = func(testing.TB, *pgxpool.Pool) any { return 1 }
	requireSays(t, failure(t, func(tb testing.TB) { dvtest.ConformBaseline(tb, c) }), "the messages change nothing that State reads")
}
