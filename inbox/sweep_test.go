package inbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/inbox"
)

const soon = 30 * time.Second

// While a transaction is open on a partition the janitor cannot have it. Handlers
// that come then must not wait behind the janitor until that transaction ends; and
// when it has ended, the same pass goes on.
func TestSweepDoesNotHoldHandlersBackAndTriesAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.handled(t, madeAgo(60*day), 46*day)
	undo := errors.New("undo")
	type result struct {
		swept inbox.Swept
		err   error
	}
	results := make(chan result, 1)
	require.ErrorIs(t, b.in.Once(t.Context(), madeAgo(60*day), func(context.Context, pgx.Tx) error {
		go func() {
			swept, err := b.janitor(t, inbox.JanitorConfig{}).Sweep(t.Context())
			results <- result{swept, err}
		}()
		require.Eventually(t, func() bool {
			return b.count(t, `select count(*) from pg_locks where mode = 'AccessExclusiveLock' and not granted`) > 0
		}, soon, time.Millisecond, "the janitor does not ask for the partition")
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		require.ErrorIs(t, b.in.Once(ctx, madeAgo(60*day), func(context.Context, pgx.Tx) error { return undo }), undo)
		require.Empty(t, results)
		return undo
	}), undo)
	got := <-results
	require.NoError(t, got.err)
	require.Equal(t, inbox.Swept{Emptied: 1}, got.swept)
	require.False(t, b.remembers(t, old))
}

// A janitor whose process hangs at the worst moment must not keep the lock under
// which it empties a partition.
func TestJanitorThatHangsHoldsNoPartition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.handled(t, madeAgo(60*day), 46*day)
	wake := make(chan struct{})
	cfg := b.pool.Config().Copy()
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &hanging{Conn: conn, wake: wake}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	j, err := inbox.NewJanitor(pool, streamAge, inbox.JanitorConfig{})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := j.Sweep(t.Context())
		done <- err
	}()
	require.Eventually(t, func() bool { return b.rows(t) == 0 }, soon, time.Millisecond)
	require.Empty(t, done)
	b.handled(t, madeAgo(60*day), 0)
	close(wake)
	require.NoError(t, <-done)
}

// hanging reads nothing after it has sent the words that lock a table, until it is
// woken.
type hanging struct {
	net.Conn
	wake <-chan struct{}
	hung atomic.Bool
}

func (c *hanging) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("lock table")) {
		c.hung.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *hanging) Read(p []byte) (int, error) {
	if c.hung.Load() {
		<-c.wake
	}
	return c.Conn.Read(p)
}

// What goes whole must not be read row by row first, nor with a plan that needs
// statistics.
func TestFullPartitionIsEmptiedWithoutReadingIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := b.bucket(t, madeAgo(60*day))
	b.fill(t, n, 20_000, 46*day)
	read := fmt.Sprintf(`select (seq_tup_read + idx_tup_fetch)::int from pg_stat_all_tables where relname = 'inbox_messages_%02d'`, n)
	pool := b.traced(t, func(pgconn.CommandTag) {})
	j, err := inbox.NewJanitor(pool, streamAge, inbox.JanitorConfig{})
	require.NoError(t, err)
	swept, err := j.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, inbox.Swept{Emptied: 1}, swept)
	pool.Close() // what a connection counted is told at its end
	require.Eventually(t, func() bool { return b.count(t, read) > 0 }, soon, 10*time.Millisecond)
	require.Less(t, b.count(t, read), 20)
}

// The clock of a sender may be wrong by ages, in both directions. Its messages are
// remembered for the horizon like any other, and then forgotten.
func TestIDsOfAWrongClockAreRememberedAndForgottenLikeAnyOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := []inbox.Message{
		{Source: "maskin", ID: "00000000-0000-7000-8000-000000000000"}, // 1970
		{Source: "maskin", ID: "ffffffff-ffff-7fff-bfff-ffffffffffff"}, // 10889
		madeAgo(-365 * day), madeAgo(-10 * time.Minute), madeAgo(10 * 365 * day),
	}
	for _, m := range all {
		b.handled(t, m, 44*day)
	}
	b.sweep(t, inbox.JanitorConfig{})
	for _, m := range all {
		require.True(t, b.remembers(t, m), "%s", m.ID)
	}
	b.exec(t, `update messaging.inbox_messages set handled_at = handled_at - interval '2 days'`)
	b.sweep(t, inbox.JanitorConfig{})
	require.Zero(t, b.rows(t))
}

// Attempts of a message that was never done stay until nobody can come back to it.
func TestAttemptsThatNobodyTouchedGo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows = 9_000 // on more blocks than are looked at together
	b.exec(t, `insert into messaging.inbox_attempts (consumer, source, message_id, starts, ended, last_at)
select 'plattform__servers', 'maskin', gen_random_uuid(), 1, 0, now() - make_interval(days => 44 + n % 2 * 2) from generate_series(1, $1::int) n`, rows)
	b.exec(t, `insert into messaging.inbox_versions (consumer, key, version, last_at) values ('plattform__servers', 'server/1', 1, now() - interval '400 days')`)
	require.Equal(t, inbox.Swept{Forgotten: rows / 2}, b.sweep(t, inbox.JanitorConfig{}))
	require.Equal(t, rows/2, b.count(t, `select count(*) from messaging.inbox_attempts where last_at > now() - interval '45 days'`))
	require.Equal(t, rows/2, b.count(t, `select count(*) from messaging.inbox_attempts`))
	require.Zero(t, b.sweep(t, inbox.JanitorConfig{}))
}

// Versions stay for ever, where nobody says otherwise.
func TestVersionsGoOnlyWhereThatIsSaid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `insert into messaging.inbox_versions (consumer, key, version, last_at)
select 'plattform__servers', 'server/' || n, 1, now() - make_interval(days => 99 + 2 * (n % 2)) from generate_series(1, 10) n`)
	require.Zero(t, b.sweep(t, inbox.JanitorConfig{}))
	require.Equal(t, inbox.Swept{Forgotten: 5}, b.sweep(t, inbox.JanitorConfig{KeepVersions: 100 * day}))
	require.Equal(t, 5, b.count(t, `select count(*) from messaging.inbox_versions where last_at > now() - interval '100 days'`))
	_, err := inbox.NewJanitor(b.pool, streamAge, inbox.JanitorConfig{KeepVersions: 45*day - 1})
	require.ErrorContains(t, err, "JanitorConfig.KeepVersions")
	_, err = inbox.NewJanitor(b.pool, streamAge, inbox.JanitorConfig{KeepVersions: 45 * day})
	require.NoError(t, err)
}

const sweeperEnv = "INBOX_TEST_SWEEPER"

// sweepingChild sweeps a database, and is killed in its archive's second call.
func sweepingChild() error {
	pool, err := pgxpool.New(context.Background(), os.Getenv(sweeperEnv))
	if err != nil {
		return err
	}
	calls := 0
	j, err := inbox.NewJanitor(pool, streamAge, inbox.JanitorConfig{Archive: func(context.Context, []inbox.ArchivedMessage) error {
		if calls++; calls > 1 {
			fmt.Println("archiving")
			select {}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	_, err = j.Sweep(context.Background())
	return err
}

// Nothing goes that the archive has not seen to the end, also when the process
// dies in the middle: the next one shows everything again.
func TestKilledJanitorLeavesAllToTheNext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows = 1_500
	b.fill(t, b.bucket(t, madeAgo(60*day)), rows, 46*day)
	c := b.pool.Config().ConnConfig
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fmt.Sprintf("%s=host=%s port=%d user=%s password='%s' dbname=%s", sweeperEnv, c.Host, c.Port, c.User, c.Password, c.Database))
	child.Stderr = t.Output()
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	_, err = out.Read(make([]byte, 1))
	killed := child.Process.Kill()
	waited := child.Wait()
	require.NoError(t, errors.Join(err, killed))
	require.ErrorContains(t, waited, "killed")

	seen := map[string]bool{}
	j := b.janitor(t, inbox.JanitorConfig{Archive: func(_ context.Context, messages []inbox.ArchivedMessage) error {
		for _, m := range messages {
			seen[m.MessageID] = true
		}
		return nil
	}})
	_, err = j.Sweep(t.Context())
	require.ErrorIs(t, err, inbox.ErrSweeping, "until the lease of the dead one ends")
	require.Equal(t, rows, b.rows(t))
	b.exec(t, `update messaging.inbox_janitor set expires_at = now()`)
	swept, err := j.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, inbox.Swept{Emptied: 1, Archived: rows}, swept)
	require.Len(t, seen, rows)
	require.Zero(t, b.rows(t))
}
