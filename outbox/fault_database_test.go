package outbox_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/outbox"
)

// kill9 kills the database and starts it again. Unlike crash it leaves the pool
// its dead connections: the relay has to get over them by itself.
func kill9(t *testing.T, server *pgserver.Server) {
	t.Helper()
	require.NoError(t, server.Kill9())
	require.NoError(t, server.Restart(t.Context()))
}

// ownPool returns b with another pool, for what a test does to a database that
// comes and goes.
func (b bundle) ownPool(t *testing.T, config *pgxpool.Config) bundle {
	t.Helper()
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	b.pool = pool
	return b
}

// The database is killed and comes back; nothing but the relay itself gets over
// its dead connections. Asleep it has to listen again; with a delta in flight it
// publishes what it cannot record, and again after.
func TestRelayGetsOverAKilledDatabaseByItself(t *testing.T) {
	t.Parallel()
	for _, inFlight := range []bool{false, true} {
		t.Run(fmt.Sprintf("delta in flight %v", inFlight), func(t *testing.T) {
			t.Parallel()
			const keys = 20
			server, b := crashable(t)
			broker, url := setupTCP(t)
			b.js = broker.js
			w := newWire(t, url)
			writer := b.ownPool(t, b.pool.Config())
			r := w.connect(t, b).newRelay(t, outbox.RelayConfig{PollInterval: 950 * time.Millisecond})
			run(t, r)
			counter := map[string]int{}
			writer.enqueueOnKeys(t, counter, keys)
			writer.requireDrained(t)
			for range 2 {
				requireAsleep(t, writer, true)
				if inFlight {
					w.answers.close()
					before := storedMessages(t, writer.js)
					writer.enqueueOnKeys(t, counter, keys)
					writer.requireStored(t, events, before+keys)
				}
				kill9(t, server)
				writer.pool.Reset()
				w.answers.open()
				writer.enqueueOnKeys(t, counter, keys)
				writer.requireDrained(t)
			}
			writer.requireExact(t, counter)
			requireReady(t, r)
		})
	}
}

// The database is killed three times in the middle of a walk of many pages,
// while a page is stored, the cursor is behind, and the page after it is read
// ahead in memory. Ids of transactions that were rolled back are given out again
// to newer events, unless the server happened to write its log just before.
//
// A row of docs/DELIVERY.md.
func TestDatabaseKilledInTheMiddleOfAWalkLosesAndReordersNothing(t *testing.T) {
	t.Parallel()
	server, b := crashable(t)
	b.out = oneStream(t) // a second stream's poll would notice the crash
	writer := b.ownPool(t, b.pool.Config())
	counter := map[string]int{}
	for range 10 {
		writer.enqueueOnKeys(t, counter, 30)
	}
	r := b.newRelay(t, outbox.RelayConfig{PageRows: 10, LeaseTTL: time.Minute}) // a renewal would flush
	caught, resume := make(chan struct{}), make(chan struct{})
	var pages atomic.Int64
	r.OnPublished(func(string, int) {
		if n := pages.Add(1); n == 5 || n == 12 || n == 19 {
			caught <- struct{}{}
			<-resume
		}
	})
	run(t, r)
	twice := false
	for kill := range 3 {
		<-caught
		require.True(t, writer.status(t).Walking)
		rolledBack := writer.rollBackMany(t, 100)
		kill9(t, server)
		writer.pool.Reset()
		if kill == 1 {
			b.pool.Reset() // as behind a pooler: the relay does not notice at once
		}
		writer.enqueueOnKeys(t, counter, 30)
		twice = reused(t, writer, rolledBack) || twice
		resume <- struct{}{}
	}
	require.True(t, twice, "no transaction id was given out twice: the test proves nothing")
	writer.requireDrained(t)
	writer.requireExact(t, counter)
	requireReady(t, r)
}

// A service that does not wait for the disk (synchronous_commit = off) enqueues,
// the event is published, and the database is killed before anything flushes its
// log: the state that the event tells of must be there. A control row, committed
// the same way after it without an event, shows that such commits do get lost.
//
// A row of docs/DELIVERY.md.
func TestStateOfAPublishedEventSurvivesACrashWithoutSynchronousCommit(t *testing.T) {
	t.Parallel()
	const rounds = 4
	server, b := crashable(t)
	_, err := b.pool.Exec(t.Context(), "create table state (n int); create table control (n int)")
	require.NoError(t, err)
	config := b.pool.Config()
	config.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	writer := b.ownPool(t, config)
	r := b.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Minute}) // a renewal would flush
	caught, resume := make(chan struct{}), make(chan struct{})
	r.OnPublished(func(string, int) { // the cursor's commit would flush
		caught <- struct{}{}
		<-resume
	})
	run(t, r)
	requireAsleep(t, writer, true)
	next := 0
	for round := range rounds {
		drafts := []envelope.Draft{} // one message and several take different statements
		for range 1 + round%2 {
			next++
			drafts = append(drafts, serverCounted.New("a", counted{Key: "a", N: next}))
		}
		err := pgx.BeginFunc(t.Context(), writer.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "insert into state values ($1)", round); err != nil {
				return err
			}
			return b.out.Enqueue(origin(t.Context()), tx, drafts...)
		})
		require.NoError(t, err)
		<-caught
		_, err = writer.pool.Exec(t.Context(), "insert into control values ($1)", round)
		require.NoError(t, err)
		kill9(t, server)
		writer.pool.Reset()
		resume <- struct{}{}
		require.Equal(t, round+1, writer.count(t, "state"), "the event is published, its state is lost")
		<-caught // sent again, because its cursor did not move
		resume <- struct{}{}
		writer.requireDrained(t)
	}
	writer.requireExact(t, map[string]int{"a": next})
	require.Less(t, writer.count(t, "control"), rounds, "no commit was lost: the test proves nothing")
}

func (b bundle) count(t *testing.T, table string) (n int) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n))
	return n
}
