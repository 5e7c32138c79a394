package consumer_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

func TestRunWorksOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(ignore))
	require.ErrorIs(t, r.Run(t.Context()), consumer.ErrAlreadyRun)
	require.NoError(t, r.stop())
	require.ErrorIs(t, r.Ready(), consumer.ErrNotRunning)
}

func TestMissingDurableIsAnErrorAtTheStart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.js.DeleteConsumer(t.Context(), b.declared.Stream.Name, b.declared.Durable))
	err := b.new(t, b.config(), handle(ignore)).Run(t.Context())
	missing, ok := errors.AsType[*consumer.DurableMissingError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, b.declared.Durable, missing.Durable)
	require.Equal(t, b.declared.Stream.Name, missing.Stream)
	require.ErrorContains(t, err, "topology.Ensure")
	_, err = b.info()
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound, "nothing was created")
}

func TestBothMissingDurablesAreNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.js.DeleteConsumer(t.Context(), b.declared.Stream.Name, b.declared.Durable))
	require.NoError(t, b.js.DeleteStream(t.Context(), b.declared.ReplayStream()))
	err := b.new(t, b.config(), handle(ignore)).Run(t.Context())
	require.ErrorContains(t, err, `"plattform__from_maskin" on stream "DV_MASKIN_EVT"`)
	require.ErrorContains(t, err, `"plattform__from_maskin__replay" on stream "DV_PLATTFORM_DLQOPS"`)
}

func TestDurableThatIsNotAsDeclaredIsRefused(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		field  string
		change func(*jetstream.ConsumerConfig)
	}{
		"limit of deliveries": {"max_deliver", func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }},
		"ack of all":          {"ack_policy", func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckAllPolicy }},
		"backoff list": {"backoff", func(c *jetstream.ConsumerConfig) {
			c.BackOff, c.MaxDeliver = []time.Duration{time.Second, 2 * time.Second}, 5
		}},
		"ack wait":  {"ack_wait", func(c *jetstream.ConsumerConfig) { c.AckWait = time.Minute }},
		"in flight": {"max_ack_pending", func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *topology.Consumer) { c.MaxAckPending = 1 })
			require.NoError(t, b.js.DeleteConsumer(t.Context(), b.declared.Stream.Name, b.declared.Durable))
			cfg := b.declared.Config()
			row.change(&cfg)
			_, err := b.js.CreateConsumer(t.Context(), b.declared.Stream.Name, cfg)
			require.NoError(t, err)
			err = b.new(t, b.config(), handle(ignore)).Run(t.Context())
			_, ok := errors.AsType[*topology.DriftError](err)
			require.True(t, ok, "%v", err)
			require.ErrorContains(t, err, row.field)
		})
	}
}

// A shutdown lets a handler finish, and its ack goes out although ctx is over.
func TestShutdownWaitsForTheHandlerAndAcks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	r := b.run(t, b.config(), handle(func(ctx context.Context, _ received) error {
		close(entered)
		<-leave
		return ctx.Err()
	}))
	b.publish(t, "a")
	<-entered
	r.cancel()
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	close(leave)
	require.NoError(t, r.stop())
	require.Equal(t, uint64(1), r.Stats().Handled)
	info, err := b.info()
	require.NoError(t, err)
	require.Zero(t, info.NumAckPending, "acknowledged when Run returned")
	require.Equal(t, uint64(1), info.AckFloor.Stream)
}

// A handler that outlasts DrainTimeout is cancelled. Whatever it returns then is
// no verdict: even at its last attempt, and even if it calls it permanent, the
// message is given back at once.
//
// A row of docs/DELIVERY.md.
func TestInterruptedHandlerCostsNoVerdict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered := make(chan error, 1)
	cfg := b.config(func(c *consumer.Config) { c.MaxAttempts, c.DrainTimeout = 1, 20*time.Millisecond })
	r := b.run(t, cfg, handle(func(ctx context.Context, _ received) error {
		entered <- nil
		<-ctx.Done()
		return envelope.Permanent(context.Cause(ctx))
	}))
	b.publish(t, "a")
	<-entered
	require.NoError(t, r.stop())
	require.Equal(t, consumer.Stats{Released: 1, Requests: r.Stats().Requests}, r.Stats())
	require.Empty(t, b.graves.all())

	next := b.run(t, b.config(), handle(ignore))
	b.settled(t)
	require.Equal(t, uint64(1), next.Stats().Handled)
}

func TestHandlerThatIgnoresItsContextIsReported(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	c := b.new(t, b.config(func(c *consumer.Config) { c.DrainTimeout = time.Millisecond }),
		handle(func(context.Context, received) error {
			close(entered)
			<-leave
			return nil
		}))
	c.SetGrace(50 * time.Millisecond)
	r := start(t, c)
	b.publish(t, "a")
	<-entered
	err := r.stop()
	close(leave)
	unfinished, ok := errors.AsType[*consumer.DrainError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, 1, unfinished.Unfinished)
	b.settled(t) // the late ack counts all the same
	require.Equal(t, uint64(1), r.Stats().Handled)
}

// Nothing that was fetched and not begun waits for AckWait after a shutdown.
func TestShutdownGivesBackWhatWasNotBegun(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *topology.Consumer) { c.AckWait = time.Hour })
	var begun atomic.Int32
	for range 5 {
		b.publish(t, numbered(20)...)
		r := b.run(t, b.config(), handle(func(context.Context, received) error {
			begun.Add(1)
			return nil
		}))
		require.NoError(t, r.stop())
	}
	r := b.run(t, b.config(), handle(ignore))
	b.settled(t) // with an AckWait of an hour
	require.LessOrEqual(t, r.Stats().Handled, uint64(100))
}

func TestCancelBeforeRunIsACleanStop(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, b.new(t, b.config(), handle(ignore)).Run(ctx))
}

func TestClosedConnectionEndsRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(ignore))
	b.js.Conn().Close()
	require.ErrorIs(t, <-r.done, consumer.ErrConnectionClosed)
	r.done <- nil // for stop
	require.ErrorIs(t, r.Ready(), consumer.ErrNotRunning)
}

// Without a worker left nothing is fetched, which nobody would see otherwise.
//
// A row of docs/DELIVERY.md.
func TestReadySaysThatAllWorkersHang(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	c := b.new(t, b.config(func(c *consumer.Config) { c.Concurrency, c.HandlerTimeout = 2, 20*time.Millisecond }),
		handle(func(context.Context, received) error { <-release; return nil }))
	c.SetGrace(20 * time.Millisecond)
	start(t, c)
	awaitReady(t, c)
	b.publish(t, "a", "b")
	awaitNotReady(t, c, "2 handlers outlast HandlerTimeout")
	close(release)
	awaitReady(t, c)
}
