package outbox_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/internal/faultlink"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
)

// A replica that lost the broker must not keep the lease from one that has it.
func TestLeaderWithoutABrokerHandsOver(t *testing.T) {
	t.Parallel()
	b, url := setupTCP(t)
	link, err := faultlink.Listen(strings.TrimPrefix(url, "nats://"))
	require.NoError(t, err)
	t.Cleanup(link.Close)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: "nats://" + link.Addr()})
	require.NoError(t, err)
	t.Cleanup(conn.NATS().Close)
	cut := bundle{pool: b.pool, js: conn.JetStream(), out: b.out}
	alone := cut.newRelay(t, outbox.RelayConfig{Holder: "a", LeaseTTL: time.Second})
	run(t, alone)
	requireLeader(t, b, "a")
	b.relay(t, outbox.RelayConfig{Holder: "b", LeaseTTL: time.Second})
	link.Cut()
	b.enqueue(t, "k", numbers(1, 10)...)
	requireLeader(t, b, "b")
	b.requireStored(t, "DV_MASKIN_EVT", 10)
	requireNotReady(t, alone, "broker")
	link.Heal()
	require.Eventually(t, func() bool { return alone.Ready() == nil }, 20*time.Second, 10*time.Millisecond, "a standby with a broker is ready")
}

// A row of docs/DELIVERY.md.
func TestBrokerRestartedWithPagesInFlightLosesAndReordersNothing(t *testing.T) {
	t.Parallel()
	server, err := natsserver.Start(t.Context(), t.TempDir(), natsserver.Options{TCP: true})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: server.URL()})
	require.NoError(t, err)
	t.Cleanup(conn.NATS().Close)
	b := bundle{pool: dvtest.Postgres(t), js: conn.JetStream(), out: newOutbox(t)}
	createStreams(t, b.js)
	counter := map[string]int{}
	b.enqueueCounted(t, counter, 1500)
	r := b.newRelay(t, outbox.RelayConfig{PageRows: 100, AckTimeout: time.Second})
	var pages atomic.Int64
	restart := make(chan struct{})
	r.OnPublished(func(string, int) {
		if pages.Add(1) == 3 {
			close(restart)
		}
	})
	run(t, r)
	<-restart
	require.NoError(t, server.Restart(t.Context()))
	b.requireStored(t, "DV_MASKIN_EVT", 1500)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), counter)
}

// unbind takes its subjects from DV_NETT_CMD, and returns what it was. The
// stream still answers questions: without that nothing would be sent to it.
func unbind(t *testing.T, b bundle) jetstream.StreamConfig {
	t.Helper()
	s, err := b.js.Stream(t.Context(), "DV_NETT_CMD")
	require.NoError(t, err)
	was := s.CachedInfo().Config
	without := was
	without.Subjects = []string{"elsewhere"}
	_, err = b.js.UpdateStream(t.Context(), without)
	require.NoError(t, err)
	return was
}

// An answer that never comes must not hang anything: here nobody but a plain
// subscriber listens, so the server knows of no fault to report.
func TestMessageWithoutAnAnswerIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	unbind(t, b)
	heard := make(chan *nats.Msg, 100)
	sub, err := b.js.Conn().ChanSubscribe("dv.nett.cmd.>", heard)
	require.NoError(t, err)
	r := b.newRelay(t, outbox.RelayConfig{AckTimeout: 100 * time.Millisecond})
	run(t, r)
	err = pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return b.out.Enqueue(origin(t.Context()), tx, provision.New("link", counted{Key: "c", N: 1}))
	})
	require.NoError(t, err)
	first, second := <-heard, <-heard
	require.Equal(t, first.Header, second.Header, "sent again with another id")
	requireNotReady(t, r, "not acknowledged")
	require.NoError(t, sub.Unsubscribe())
	require.NoError(t, b.js.DeleteStream(t.Context(), "DV_NETT_CMD"))
	createStreams(t, b.js)
	b.requireStored(t, "DV_NETT_CMD", 1)
}

func TestStreamOfAnotherDomainIsNotPublishedTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{Domain: "dc9"})
	run(t, r)
	b.enqueue(t, "a", 1)
	requireNotReady(t, r, "$JS.dc9.API.")
	require.Positive(t, unpublished(t, b))
	b.requireStored(t, "DV_MASKIN_EVT", 0)
}

// A stream of another name may hold the subject; then it must refuse.
func TestStreamOfAnotherNameDoesNotTakeTheMessages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cfg := unbind(t, b)
	cfg.Name = "SOMEBODYS"
	_, err := b.js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	r := b.newRelay(t, outbox.RelayConfig{})
	run(t, r)
	err = pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return b.out.Enqueue(origin(t.Context()), tx, provision.New("link", counted{Key: "c", N: 1}))
	})
	require.NoError(t, err)
	requireNotReady(t, r, "10060")
	b.requireStored(t, "SOMEBODYS", 0)
}

func TestReadyTellsTheTruth(t *testing.T) {
	t.Parallel()
	b := setup(t)
	leader := b.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Second})
	require.ErrorContains(t, leader.Ready(), "not running", "before Run")
	stop := run(t, leader)
	require.Eventually(t, func() bool { return leader.Leading() && leader.Ready() == nil }, 20*time.Second, time.Millisecond)
	standby := b.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Second})
	run(t, standby)
	requireReady(t, standby)

	// The trouble of a stream is the leader's; it ends with its term.
	require.NoError(t, b.js.DeleteStream(t.Context(), "DV_MASKIN_EVT"))
	b.enqueue(t, "a", 1)
	require.Eventually(t, func() bool { return leader.Ready() != nil }, 20*time.Second, time.Millisecond)
	_, err := b.pool.Exec(t.Context(), "update messaging.outbox_lease set holder = 'other', term = term + 1, expires_at = clock_timestamp() + interval '1 hour'")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !leader.Leading() && leader.Ready() == nil }, 20*time.Second, time.Millisecond)
	stop()
	require.ErrorContains(t, leader.Ready(), "not running", "after Run")
}

func TestFailFastReturnsWhatCannotBeReached(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "host="+t.TempDir()+" user=nobody dbname=nothing")
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	b := bundle{pool: pool, js: dvtest.NATS(t).JetStream(), out: newOutbox(t)}
	require.ErrorContains(t, b.newRelay(t, outbox.RelayConfig{FailFast: true}).Run(t.Context()), "acquire the lease")

	patient := b.newRelay(t, outbox.RelayConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- patient.Run(ctx) }()
	require.Eventually(t, func() bool { err := patient.Ready(); return err != nil && !errors.Is(err, context.Canceled) }, 20*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}

// Numbers handed out in blocks, or twice, would make a walk skip rows.
func TestSequenceIsCheckedBeforeItIsReliedOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{PageRows: 3})
	b.enqueue(t, "a", numbers(1, 10)...)
	b.requireStored(t, "DV_MASKIN_EVT", 10)
	stop()
	_, err := b.pool.Exec(t.Context(), `insert into messaging.outbox_anchors (stream, acked_sequence, base, floor, next_floor)
		select stream, 0, base, 1000, 1000 from messaging.outbox_state`)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), "truncate messaging.outbox_events restart identity")
	require.NoError(t, err)
	b.enqueue(t, "b", numbers(1, 8)...)
	stop = b.relay(t, outbox.RelayConfig{PageRows: 3})
	b.requireStored(t, "DV_MASKIN_EVT", 18)
	stop()
	var void int
	require.NoError(t, b.pool.QueryRow(t.Context(), "select count(*) from messaging.outbox_anchors where floor > 100").Scan(&void))
	require.Zero(t, void, "an anchor from before the sequence was set back is left")
	_, err = b.pool.Exec(t.Context(), "alter table messaging.outbox_events alter column seq set cache 50")
	require.NoError(t, err)
	require.ErrorIs(t, b.newRelay(t, outbox.RelayConfig{}).Run(t.Context()), outbox.ErrSequenceCache)
}
