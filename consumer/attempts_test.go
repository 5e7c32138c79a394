package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func newInbox(t testing.TB, pool *pgxpool.Pool) *inbox.Inbox {
	t.Helper()
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	return in
}

func withStore(in *inbox.Inbox) func(*consumer.Config) {
	return func(c *consumer.Config) { c.Store = in }
}

func rowsOf(t testing.TB, pool *pgxpool.Pool, table string) (n int) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), `select count(*) from messaging.`+table).Scan(&n))
	return n
}

// Deliveries that no handler saw are no attempts: here a client that took the
// message and gave it back seven times.
func TestAttemptsAreHandlerStartsNotDeliveries(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	b.publish(t, "bad")
	durable, err := b.js.Consumer(t.Context(), b.declared.Stream.Name, b.declared.Durable)
	require.NoError(t, err)
	for range 7 {
		m, err := durable.Next(jetstream.FetchMaxWait(soon))
		require.NoError(t, err)
		require.NoError(t, m.Nak())
	}
	var starts tally
	b.run(t, b.config(withStore(newInbox(t, pool)), func(c *consumer.Config) { c.MaxAttempts = 3 }), handle(func(_ context.Context, m received) error {
		if n := starts.add(m.Data.Hostname); n != m.Attempt || !m.Redelivered {
			return fmt.Errorf("start %d is told as attempt %d, redelivered: %v", n, m.Attempt, m.Redelivered)
		}
		return errBroken
	}))
	letter := b.graves.await(t, 1)[0]
	require.Equal(t, envelope.ClassExhausted, letter.Class)
	require.Equal(t, 3, letter.Attempts)
	require.ErrorIs(t, letter.Err, errBroken)
	require.Len(t, starts.names(), 3)
	b.settled(t)
	require.Zero(t, rowsOf(t, pool, "inbox_attempts"), "a message that is done is remembered")
}

// What succeeds at once must not cost a commit of its own.
func TestFirstDeliveryThatSucceedsWritesNoAttempt(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	var most int
	b.run(t, b.config(withStore(newInbox(t, pool)), func(c *consumer.Config) { c.Concurrency = 1 }), handle(func(_ context.Context, m received) error {
		most = max(most, rowsOf(t, pool, "inbox_attempts"))
		if m.Redelivered {
			return errBroken
		}
		return nil
	}))
	b.publish(t, numbered(10)...)
	b.settled(t)
	require.Zero(t, most)
}

// A shutdown that interrupts a handler takes no attempt away.
func TestShutdownTakesNoAttempt(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	in := newInbox(t, pool)
	b.publish(t, "slow")
	var mu sync.Mutex
	var attempts []int
	for range 4 {
		begun := make(chan struct{})
		c := b.new(t, b.config(withStore(in), func(c *consumer.Config) { c.DrainTimeout, c.MaxAttempts = time.Millisecond, 2 }),
			handle(func(ctx context.Context, m received) error {
				mu.Lock()
				attempts = append(attempts, m.Attempt)
				mu.Unlock()
				close(begun)
				<-ctx.Done()
				return ctx.Err()
			}))
		r := start(t, c)
		select {
		case <-begun:
		case <-time.After(soon):
			t.Fatal("the message does not come again")
		}
		require.NoError(t, r.stop())
	}
	require.Equal(t, []int{1, 1, 1, 1}, attempts)
	require.Empty(t, b.graves.all())
}

// While the database is away nothing can be begun, and that is nobody's attempt.
//
// A row of docs/DELIVERY.md.
func TestOutageOfTheDatabaseSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	server, err := pgserver.Start(t.Context(), pgserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	pool, err := pgxpool.New(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
	in := newInbox(t, pool)
	_, err = pool.Exec(t.Context(), `create table node (host text)`)
	require.NoError(t, err)
	r := b.run(t, b.config(withStore(in), func(c *consumer.Config) { c.MaxAttempts = 2 }),
		inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
			_, err := tx.Exec(ctx, `insert into node values ($1)`, m.Data.Hostname)
			return err
		}))
	require.NoError(t, server.Kill9())
	b.publish(t, numbered(5)...)
	require.Eventually(t, func() bool { return r.Stats().Released >= 10 }, soon, tick, "nothing is given back")
	require.NoError(t, server.Restart(t.Context()))
	b.settled(t)
	require.Empty(t, b.graves.all())
	require.Equal(t, 5, rowsOf(t, pool, "inbox_messages"))
}

// Which handler the child has.
const (
	crashEnv    = "CONSUMER_TEST_CRASH"
	crashSingle = "single"
	crashBatch  = "batch"
)

// crashingChild consumes until it meets the message that kills it.
func crashingChild() error {
	ctx := context.Background()
	p, err := openChild(ctx)
	if err != nil {
		return err
	}
	handler := func(ctx context.Context, tx pgx.Tx, all []received) error {
		for _, m := range all {
			if m.Data.Hostname == "killer" {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			if m.Redelivered && len(all) > 1 {
				fmt.Fprintln(os.Stderr, "a message that came before is among others")
				os.Exit(3)
			}
			if _, err := tx.Exec(ctx, `insert into node select $1 from pg_sleep(0.005)`, m.Data.Hostname); err != nil {
				return err
			}
		}
		return nil
	}
	route := inbox.On(p.in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error { return handler(ctx, tx, []received{m}) })
	if os.Getenv(crashEnv) == crashBatch {
		route = inbox.OnBatch(p.in, provisioned, inbox.Batch{}, handler)
	}
	c, err := consumer.New(p.js, p.queue, consumer.Config{Consumer: crashDurable(), Store: p.in}, route)
	return errors.Join(err, c.Run(ctx))
}

func crashDurable() topology.Consumer {
	return topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, topology.Limits{MaxBytes: 64 << 20}),
		Filter: subject.EventsOf(subject.Maskin), AckWait: time.Second, MaxAckPending: 20, Start: topology.StartFirst(),
	}
}

// A message that kills every process that handles it is found out and becomes a
// dead letter of class crash. Those that died beside it are handled.
//
// A row of docs/DELIVERY.md.
func TestMessageThatKillsItsProcessIsFoundOutAndItsNeighboursAreNotBlamed(t *testing.T) {
	t.Parallel()
	for _, how := range []string{crashSingle, crashBatch} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			testMessageThatKillsItsProcess(t, how)
		})
	}
}

func testMessageThatKillsItsProcess(t *testing.T, how string) {
	server := dvtest.Server(t)
	b := setupOn(t, server.Connect(t).JetStream(), func(c *topology.Consumer) { *c = crashDurable() })
	pool := dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `create table node (host text)`)
	require.NoError(t, err)
	names := append(append(numbered(30)[:15:15], "killer"), numbered(30)[15:]...)
	b.publish(t, names...)

	deaths := 0
	for ; ; deaths++ {
		require.LessOrEqual(t, deaths, 6, "the message kills on and on")
		child := exec.Command(os.Args[0], "-test.run=^$")
		child.Env = append(os.Environ(), crashEnv+"="+how, natsEnv+"="+server.URL(), postgresEnv+"="+connString(pool))
		child.Stdout, child.Stderr = t.Output(), t.Output()
		require.NoError(t, child.Start())
		if b.outlives(t, child) {
			break
		}
	}
	require.GreaterOrEqual(t, deaths, 3)
	var hosts, rows int
	require.NoError(t, pool.QueryRow(t.Context(), `select count(distinct host), count(*) from node`).Scan(&hosts, &rows))
	require.Equal(t, []int{30, 30}, []int{hosts, rows}, "neighbours were lost or doubled")
	queue, err := dlq.Open(t.Context(), b.js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	var letters []dlq.Letter
	for l, err := range queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		letters = append(letters, l)
	}
	require.Len(t, letters, 1, "a neighbour was blamed")
	require.Equal(t, envelope.ClassCrash, letters[0].Class)
}

// outlives waits until the child is killed, or is through with the stream; then
// it is stopped.
func (b *bundle) outlives(t *testing.T, child *exec.Cmd) bool {
	t.Helper()
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }()
	deadline := time.After(60 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-exited:
			require.ErrorContains(t, err, "killed")
			return false
		case <-look.C:
			info, err := b.info()
			if err == nil && info.AckFloor.Stream == 31 {
				require.NoError(t, child.Process.Kill())
				<-exited
				return true
			}
		case <-deadline:
			_ = child.Process.Kill()
			<-exited
			require.Fail(t, "the stream is not handled")
		}
	}
}

func connString(pool *pgxpool.Pool) string {
	c := pool.Config().ConnConfig
	return fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s", c.Host, c.Port, c.User, c.Password, c.Database)
}
