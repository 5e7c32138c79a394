package outbox_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// Environment of a child process that is a relay and nothing else.
const (
	childEnv     = "OUTBOX_TEST_CHILD"     // how many published pages it may record; then it stands still
	childNATSEnv = "OUTBOX_TEST_NATS"      // URL
	childPGEnv   = "OUTBOX_TEST_POSTGRES"  // connection string
	stoppedLine  = "stored, cursor behind" // what the child prints when it stands still
	standbyLine  = "no longer leads"       // and when it has lost the lease
)

// relayChild runs a relay until it is killed. Once, in the window between the
// last acknowledgement of a page and the cursor's commit, it says so and stands
// still, so that the kill finds messages stored and the cursor behind. A line on
// its standard input makes it go on.
func relayChild() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := runRelayChild(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runRelayChild(ctx context.Context) error {
	budget, err := strconv.Atoi(os.Getenv(childEnv))
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Getenv(childPGEnv))
	if err != nil {
		return err
	}
	conn, err := natsconn.Dial(ctx, natsconn.Config{URL: os.Getenv(childNATSEnv)})
	if err != nil {
		return err
	}
	out, err := outbox.New(maskinSet, outbox.Config{})
	if err != nil {
		return err
	}
	relay, err := outbox.NewRelay(out, pool, conn.JetStream(), outbox.RelayConfig{
		LeaseTTL: time.Second, PollInterval: time.Millisecond, PageRows: 20,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	standStill(relay)
	relay.OnPublished(func(string, int) {
		if budget--; budget != -1 {
			return
		}
		fmt.Println(stoppedLine)
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			os.Exit(1) // whoever started us is gone
		}
	})
	go reportStandby(ctx, relay)
	return relay.Run(ctx)
}

// reportStandby prints a line each time the relay has lost the lease.
func reportStandby(ctx context.Context, relay *outbox.Relay) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for led := false; ctx.Err() == nil; <-ticker.C {
		leads := relay.Leading()
		if led && !leads {
			fmt.Println(standbyLine)
		}
		led = leads
	}
}

// child is a running relay process.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

func startChild(t *testing.T, budget int, natsURL, pgURL string, env ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+strconv.Itoa(budget), childNATSEnv+"="+natsURL, childPGEnv+"="+pgURL)
	cmd.Env = append(cmd.Env, env...)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = t.Output()
	require.NoError(t, cmd.Start())
	c := &child{cmd, stdin, bufio.NewReader(stdout)}
	t.Cleanup(c.kill)
	return c
}

// await returns when the child has said so. A child that does not is killed, which
// fails this test instead of holding up all.
func (c *child) await(t *testing.T, said string) {
	t.Helper()
	late := time.AfterFunc(2*time.Minute, func() { _ = c.cmd.Process.Kill() })
	defer late.Stop()
	for line := ""; line != said; {
		text, err := c.stdout.ReadString('\n')
		require.NoError(t, err, "the child does not say %q", said)
		line = strings.TrimSpace(text)
	}
}

// goOn lets a child that stands still go on.
func (c *child) goOn(t *testing.T) {
	t.Helper()
	_, err := fmt.Fprintln(c.stdin)
	require.NoError(t, err)
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Signal(s))
}

// freeze stops the child with SIGSTOP, and returns when it stands still: on a loaded
// machine its threads run on for a while.
func (c *child) freeze(t *testing.T) {
	t.Helper()
	c.signal(t, syscall.SIGSTOP)
	require.Eventually(t, func() bool {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil)
		return err == nil && pid > 0 && status.Stopped()
	}, 20*time.Second, time.Millisecond, "it does not stop")
}

func (c *child) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL)
	_, _ = io.Copy(io.Discard, c.stdout)
	_ = c.cmd.Wait()
}

// The relay process is killed 50 times, 45 of them while messages are stored
// and the cursor is behind; 5 of them wherever it happens to be. The stream
// forgets ids after 100 ms here, so that what is sent again would be stored
// again: the relay finds it in the stream. Each committed event is stored once,
// is in effect exactly once, and in the order of its key.
//
// A row of docs/DELIVERY.md.
func TestRelayKilledFiftyTimesLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	const kills, atFailpoint = 50, 45
	b, natsURL := setupTCP(t)
	effects := startLedger(t, b)
	shortenDuplicateWindow(t, b)
	counter := map[string]int{}
	behind := 0
	for kill := range kills {
		budget := kill % 3 // the first, second or third page of the child's life
		if kill >= atFailpoint {
			budget = 1000
		}
		b.enqueueCounted(t, counter, 10+20*(kill%3))
		before := storedMessages(t, b.js)
		c := startChild(t, budget, natsURL, connString(b.pool))
		if kill < atFailpoint {
			c.await(t, stoppedLine)
			require.Positive(t, unpublished(t, b), "kill %d: the cursor is not behind", kill)
			behind++
		} else {
			require.Eventually(t, func() bool { return storedMessages(t, b.js) > before }, 20*time.Second, time.Millisecond)
		}
		c.kill()
		expireLease(t, b)
	}
	require.GreaterOrEqual(t, behind, 40)

	b.relay(t, outbox.RelayConfig{})
	effects.require(t, counter)
	t.Logf("%d kills, %d with the cursor behind: %d events, %d messages stored, %d duplicates absorbed by the inbox",
		kills, behind, effects.count(t), storedMessages(t, b.js), effects.duplicates())
	b.requireOnce(t, effects.count(t))
}

// setupTCP is setup with a broker that other processes reach.
func setupTCP(t *testing.T) (bundle, string) {
	t.Helper()
	server, err := natsserver.Start(t.Context(), t.TempDir(), natsserver.Options{TCP: true})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: server.URL()})
	require.NoError(t, err)
	t.Cleanup(conn.NATS().Close)
	b := bundle{pool: dvtest.Postgres(t), js: conn.JetStream(), out: newOutbox(t)}
	createStreams(t, b.js)
	return b, server.URL()
}

// connString tells a child process how to reach the test's database.
func connString(pool *pgxpool.Pool) string {
	c := pool.Config().ConnConfig
	return fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s", c.Host, c.Port, c.User, c.Password, c.Database)
}

func shortenDuplicateWindow(t *testing.T, b bundle) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	cfg.Duplicates = 100 * time.Millisecond
	_, err = b.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
}

// enqueueCounted commits n messages on three keys, five to a transaction.
func (b bundle) enqueueCounted(t *testing.T, counter map[string]int, n int) {
	t.Helper()
	for n > 0 {
		var drafts []envelope.Draft
		for range min(n, 5) {
			key := keyName(n % 3)
			counter[key]++
			drafts = append(drafts, serverCounted.New(key, counted{Key: key, N: counter[key]}))
			n--
		}
		err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			return b.out.Enqueue(origin(t.Context()), tx, drafts...)
		})
		require.NoError(t, err)
	}
}

func storedMessages(t testing.TB, js jetstream.JetStream) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	return s.CachedInfo().State.Msgs
}

func unpublished(t *testing.T, b bundle) int64 {
	t.Helper()
	st, err := outbox.ReadStatus(t.Context(), b.pool, "")
	require.NoError(t, err)
	return st.Streams[0].Unpublished
}

// expireLease saves the test the wait for a dead relay's lease.
func expireLease(t *testing.T, b bundle) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), "update messaging.outbox_lease set expires_at = clock_timestamp()")
	require.NoError(t, err)
}

// crashable is a database that a test may kill. Nothing but a commit flushes
// its log, so that a kill forgets the transactions that were rolled back, and
// gives their ids to new ones.
func crashable(t *testing.T) (*pgserver.Server, bundle) {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.Options{
		Durable: true, CachedInit: true,
		Settings: map[string]string{"wal_writer_delay": "10s", "wal_level": "minimal", "max_wal_senders": "0"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	pool, err := pgxpool.New(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
	b := bundle{pool: pool, js: dvtest.NATS(t).JetStream(), out: newOutbox(t)}
	createStreams(t, b.js)
	return server, b
}

func oneStream(t *testing.T) *outbox.Outbox {
	t.Helper()
	out, err := outbox.New(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinEvents}}, outbox.Config{})
	require.NoError(t, err)
	return out
}

// crash kills the database and waits until it is back.
func crash(t *testing.T, server *pgserver.Server, b bundle) {
	t.Helper()
	require.NoError(t, server.Kill9())
	require.NoError(t, server.Restart(t.Context()))
	b.pool.Reset() // as behind a pooler: a dead connection must not be what saves the relay
	require.Eventually(t, func() bool { return b.pool.Ping(t.Context()) == nil }, 20*time.Second, 10*time.Millisecond)
}

// requireReused makes sure that the newest event has a transaction id that was
// given out before the crash: otherwise the test proves nothing.
func requireReused(t *testing.T, b bundle, rolledBack uint64) {
	t.Helper()
	require.True(t, reused(t, b, rolledBack), "no transaction id was given out twice: the test proves nothing")
}

func reused(t *testing.T, b bundle, rolledBack uint64) bool {
	t.Helper()
	var id uint64
	require.NoError(t, b.pool.QueryRow(t.Context(), "select xid::text::bigint from messaging.outbox_events order by seq desc limit 1").Scan(&id))
	return id <= rolledBack
}

// A relay that kept the snapshot of an idle poll would take the first event
// after the crash for seen.
//
// A row of docs/DELIVERY.md.
func TestDatabaseKilledAfterRollbacksAndAnIdlePollStillPublishes(t *testing.T) {
	t.Parallel()
	server, b := crashable(t)
	r := b.newRelay(t, outbox.RelayConfig{PollInterval: time.Millisecond, LeaseTTL: time.Minute}) // a renewal would flush
	polls := make(chan struct{})
	r.OnPolled(func() {
		select {
		case polls <- struct{}{}:
		default:
		}
	})
	run(t, r)
	b.enqueue(t, "a", 1)
	b.requireStored(t, "DV_MASKIN_EVT", 1)
	require.Eventually(t, func() bool { return unpublished(t, b) == 0 }, 20*time.Second, time.Millisecond)
	requireAsleep(t, b, true) // its mark is the last thing it writes

	rolledBack := b.rollBackMany(t, 300)
	<-polls // of three polls the last two began after the rollbacks
	<-polls
	<-polls
	crash(t, server, b)
	b.enqueue(t, "a", 2)
	requireReused(t, b, rolledBack)
	b.requireStored(t, "DV_MASKIN_EVT", 2)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"a": 2})
}

// The same, with the snapshot in the hands of a relay that is busy: the polled
// snapshot becomes the base after its page is published, or the walk begins.
// The lease outlives the crash, so nothing but the emptied table of living
// terms tells the relay that its snapshot is void.
//
// A row of docs/DELIVERY.md.
func TestDatabaseKilledWhileAPageIsInFlightStillPublishes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg    outbox.RelayConfig
		events int
		walk   bool
	}{
		"before the base moves":  {outbox.RelayConfig{}, 1, false},
		"before the walk begins": {outbox.RelayConfig{PageRows: 2}, 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, b := crashable(t)
			b.out = oneStream(t)                     // a second stream's poll would notice the crash
			stop := b.relay(t, outbox.RelayConfig{}) // what a relay writes once for a new stream would flush
			b.enqueue(t, "warm", 1)
			b.requireDrained(t)
			stop()
			c.cfg.PollInterval, c.cfg.LeaseTTL = time.Millisecond, time.Minute
			r := b.newRelay(t, c.cfg)
			first, look := make(chan struct{}), make(chan struct{})
			caught, resume := make(chan struct{}), make(chan struct{})
			still := sync.OnceFunc(func() { close(caught); <-resume })
			var polls atomic.Int64
			r.OnPolled(func() {
				switch n := polls.Add(1); {
				case n == 1: // saw nothing; the events come now
					close(first)
					<-look
				case n == 2 && c.walk:
					still()
				}
			})
			r.OnPublished(func(string, int) {
				if !c.walk {
					still()
				}
			})
			run(t, r)
			<-first
			b.enqueue(t, "a", numbers(1, c.events)...)
			rolledBack := b.rollBackMany(t, 300)
			close(look)
			<-caught
			crash(t, server, b)
			b.enqueue(t, "a", c.events+1)
			requireReused(t, b, rolledBack)
			close(resume)
			b.requireStored(t, "DV_MASKIN_EVT", uint64(1+c.events+1))
			requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"warm": 1, "a": c.events + 1})
		})
	}
}

// rollBackMany returns the highest transaction id that came to nothing. It goes
// on until the log's last page, which is all that a kill surely loses, holds
// several: how they fall into pages depends on what the migrations wrote.
func (b bundle) rollBackMany(t *testing.T, n int) (last uint64) {
	t.Helper()
	for unwritten := 0; n > 0 || unwritten < 5000; n-- {
		require.Greater(t, n, -100)
		tx, err := b.pool.Begin(t.Context())
		require.NoError(t, err)
		require.NoError(t, b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "phantom", N: 1})))
		require.NoError(t, tx.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&last))
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, b.pool.QueryRow(t.Context(), "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_lsn())::int").Scan(&unwritten))
	}
	return last
}
