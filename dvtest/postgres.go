package dvtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

const (
	// maxConns is enough for a relay, a consumer and a few writers, and lets
	// many tests share a server.
	maxConns = 8
	// closePatience is how long a pool may take to get its connections back.
	closePatience = 10 * time.Second
)

// Postgres returns a pool on a database of this test's own that holds the
// library's tables in their default schema. Pool and database end with the test,
// which fails if it still holds a connection then. The pool has at most 8
// connections. Skipped with -short.
func Postgres(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return database(tb, true)
}

// EmptyPostgres is [Postgres] without any table, for tests of migrations and of
// other schemas.
func EmptyPostgres(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return database(tb, false)
}

func database(tb testing.TB, migrated bool) *pgxpool.Pool {
	tb.Helper()
	skipShort(tb, "PostgreSQL")
	f, err := shared()
	require.NoError(tb, err)
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	name, err := f.create(ctx, migrated)
	require.NoError(tb, err)
	// The test's own context has ended by then.
	tb.Cleanup(func() { require.NoError(tb, f.drop(context.Background(), name)) })
	pool, err := f.open(ctx, name, tb.Name())
	require.NoError(tb, err)
	tb.Cleanup(func() { closePool(tb, pool, closePatience) })
	return pool
}

// closePool closes a pool, but does not wait for ever for a connection that the
// test has not given back: the test would hang instead of failing.
func closePool(tb testing.TB, pool *pgxpool.Pool, patience time.Duration) {
	tb.Helper()
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		tb.Errorf("dvtest: the test still holds %d database connections at its end; close its rows, transactions and relays first",
			pool.Stat().AcquiredConns())
	}
}
