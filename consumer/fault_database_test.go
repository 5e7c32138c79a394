package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
)

// frail is a broker, and a database server that the test kills.
type frail struct {
	*bundle
	server *pgserver.Server
	pool   *pgxpool.Pool // the consumer's; nobody resets it
}

func setupFrail(t *testing.T) *frail {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	pool, err := pgxpool.New(t.Context(), server.URL("postgres")+"&pool_max_conns=12")
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
	_, err = pool.Exec(t.Context(), `create table node (host text not null)`)
	require.NoError(t, err)
	return &frail{bundle: setup(t), server: server, pool: pool}
}

// PostgreSQL is killed in the middle of 500 messages, is away for three seconds,
// and comes back. Some handlers were at their first attempt and some at their
// second, and meanwhile the messages come and go. No attempt is spent on the
// outage and none becomes a dead letter; what was committed is not done again; and
// the consumer goes on by itself, over the dead connections of its pool.
//
// A row of docs/DELIVERY.md.
func TestOutageOfTheDatabaseInMidFlightCostsNothing(t *testing.T) {
	t.Parallel()
	const away = 3 * time.Second
	f := setupFrail(t)
	var mu sync.Mutex
	var half sync.Once
	attempts := map[string][]int{} // by message, of the starts that reached the handler
	halfway, inHandler := make(chan struct{}), 0
	in, names := newInbox(t, f.pool), numbered(500)
	f.publish(t, names...)
	r := f.run(t, f.config(withStore(in), func(c *consumer.Config) { c.Concurrency, c.MaxAttempts = 10, 3 }),
		inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
			mu.Lock()
			attempts[m.Data.Hostname] = append(attempts[m.Data.Hostname], m.Attempt)
			if len(attempts) == 250 {
				half.Do(func() { close(halfway) })
			}
			inHandler++
			mu.Unlock()
			defer func() { mu.Lock(); inHandler--; mu.Unlock() }()
			if m.Data.Hostname[3] == '7' && m.Attempt == 1 {
				return errBroken // every tenth succeeds at its second attempt
			}
			_, err := tx.Exec(ctx, `insert into node select $1 from pg_sleep(0.01)`, m.Data.Hostname)
			return err
		}))
	<-halfway
	mu.Lock()
	busy := inHandler
	require.NoError(t, f.server.Kill9()) // no handler begins or returns meanwhile
	mu.Unlock()
	require.Positive(t, busy)
	<-time.After(away)
	require.Error(t, r.Ready(), "nobody hears of the outage")
	require.NoError(t, f.server.Restart(t.Context()))
	f.settled(t)
	awaitReady(t, r)
	requireOnce(t, f.pool, names)
	require.Empty(t, f.graves.all())
	for name, n := range attempts {
		want := []int{1}
		if name[3] == '7' {
			want = []int{1, 2}
		}
		require.Equal(t, want, slices.Compact(n), "attempts of %s", name)
	}
	t.Logf("%d handlers were cut off, %d deliveries went back", busy, r.Stats().Released)
}

// The database dies again and again under one message, always while its handler
// runs. Nobody's process died, so the message is not taken for one that kills.
//
// A row of docs/DELIVERY.md.
func TestOutagesOfTheDatabaseAreNoCrashesOfTheHandler(t *testing.T) {
	t.Parallel()
	const outages = 4
	f := setupFrail(t)
	in, log := newInbox(t, f.pool), &book{}
	begun, resume := make(chan int), make(chan struct{})
	f.run(t, f.config(withStore(in), log.config(), func(c *consumer.Config) { c.MaxAttempts = 3 }),
		inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
			begun <- m.Attempt
			<-resume
			_, err := tx.Exec(ctx, `insert into node values ($1)`, m.Data.Hostname)
			return err
		}))
	f.publish(t, "unlucky")
	var attempts []int
	for n := range outages + 1 {
		select {
		case attempt := <-begun:
			attempts = append(attempts, attempt)
		case <-time.After(soon):
			require.Fail(t, "the message does not come again", fmt.Sprintf("after outage %d: %v", n, f.graves.all()))
		}
		if n < outages {
			require.NoError(t, f.server.Kill9())
		}
		resume <- struct{}{}
		if n < outages {
			require.Eventually(t, func() bool { return len(log.lines("did not take the end")) > n }, soon, tick)
			require.NoError(t, f.server.Restart(t.Context()))
		}
	}
	f.settled(t)
	requireOnce(t, f.pool, []string{"unlucky"})
	require.Empty(t, f.graves.all())
	require.Equal(t, []int{1}, slices.Compact(attempts))
}
