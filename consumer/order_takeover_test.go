package consumer_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/topology"
)

// slowAcks waits longer for acks than any test: nothing may need it.
func slowAcks(c *topology.Consumer) { c.AckWait = 2 * time.Minute }

// thief is another client of the durable: an earlier instance, say.
type thief struct {
	nc   *nats.Conn
	sub  *nats.Subscription
	next string
}

func (l *ledger) thief(t *testing.T) *thief {
	t.Helper()
	nc := l.js.Conn()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return &thief{nc: nc, sub: sub, next: "$JS.API.CONSUMER.MSG.NEXT." + l.declared.Stream.Name + "." + l.declared.Durable}
}

// ask leaves a request for n messages at the server.
func (f *thief) ask(t *testing.T, n int) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"batch": n, "expires": 20 * time.Second})
	require.NoError(t, err)
	require.NoError(t, f.nc.PublishRequest(f.next, f.sub.Subject, body))
	require.NoError(t, f.nc.Flush())
}

// waiting waits until so many requests wait at the server.
func (l *ledger) waiting(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		info, err := l.info()
		return err == nil && info.NumWaiting == n
	}, soon, tick)
}

// got returns how many messages came.
func (f *thief) got(t *testing.T) int {
	t.Helper()
	n, _, err := f.sub.Pending()
	require.NoError(t, err)
	return n
}

// take receives n messages and settles none.
func (f *thief) take(t *testing.T, n int) {
	t.Helper()
	for range n {
		m, err := f.sub.NextMsg(soon)
		require.NoError(t, err)
		require.NotEmpty(t, m.Reply, "a status: %v", m.Header)
	}
}

// What an instance held when it died comes again at once and before its
// followers, not after AckWait.
//
// A row of docs/DELIVERY.md.
func TestTakeOverGetsWhatTheDeadInstanceHeldBeforeItsFollowers(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	l.count(t, "a", 1, 2, 3, 4)
	dead := l.thief(t)
	dead.ask(t, 4)
	dead.take(t, 4)
	l.count(t, "a", 5, 6, 7, 8)
	l.run(t, l.ordered(), l.apply(nil))
	l.awaitEffects(t, "a", 1, 2, 3, 4, 5, 6, 7, 8)
}

// A request that the old instance left at the server is served after the reset
// too. What it gets must not come after its followers.
//
// A row of docs/DELIVERY.md.
func TestRequestLeftAtTheServerDoesNotReorder(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	old := l.thief(t)
	old.ask(t, 4)
	start(t, l.new(t, l.ordered(), l.apply(nil)))
	l.waiting(t, 2)
	l.count(t, "a", 1, 2, 3, 4, 5, 6, 7, 8)
	l.awaitEffects(t, "a", 1, 2, 3, 4, 5, 6, 7, 8)
	l.settled(t)
	require.Positive(t, old.got(t), "the request was not served")
}

// Somebody takes messages away at any time, and settles none.
//
// A row of docs/DELIVERY.md.
func TestOtherClientOfTheDurableDoesNotReorder(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	l.run(t, l.ordered(), l.apply(nil))
	other := l.thief(t)
	for n := 1; n <= 40; n++ {
		if n%10 == 3 { // behind the consumer's request, which expires
			other.ask(t, 2)
			require.NoError(t, pauseFor(600*time.Millisecond))
		}
		l.count(t, "a", n)
		l.count(t, "b", n)
	}
	l.settled(t)
	l.requireOrder(t, 2, 40)
	require.Positive(t, other.got(t))
}

// The database is away for longer than the lease: nothing is handled, nothing
// dies, and the order holds when it is back.
//
// A row of docs/DELIVERY.md.
func TestOutageOfTheDatabaseEndsTheTermAndKeepsTheOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, slowAcks)
	server, err := pgserver.Start(t.Context(), pgserver.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	pool, err := pgxpool.New(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
	_, err = pool.Exec(t.Context(), createEffects)
	require.NoError(t, err)
	l := &ledger{bundle: b, pool: pool, in: newInbox(t, pool)}
	r := l.run(t, l.ordered(func(c *consumer.Config) { c.MaxAttempts = 3 }), l.apply(nil))
	l.publishKeys(t, 10, 5)
	l.settled(t)
	require.NoError(t, server.Kill9())
	l.count(t, "late", 1, 2, 3)
	require.Eventually(t, func() bool { return !r.Stats().Active }, soon, tick)
	awaitNotReady(t, r, "lease")
	require.NoError(t, server.Restart(t.Context()))
	l.awaitEffects(t, "late", 1, 2, 3)
	awaitReady(t, r)
	require.Empty(t, l.graves.all())
}

// The standby is ready, does nothing, and takes over as soon as the active
// instance has drained; what that had not begun is handled in its place.
func TestStandbyIsReadyAndTakesOverAfterADrain(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	long := func(c *consumer.Config) { c.Order.LeaseTTL, c.Concurrency = 30*time.Second, 1 }
	begun, finish := make(chan struct{}), make(chan struct{})
	active := l.run(t, l.ordered(long), l.apply(func(context.Context, envelope.Received[numberV1]) error {
		close(begun)
		<-finish
		return nil
	}))
	require.Eventually(t, func() bool { return active.Stats().Active }, soon, tick)
	standby := l.run(t, l.ordered(long, func(c *consumer.Config) { c.Order.LeaseTTL = time.Second }), l.apply(nil))
	l.count(t, "a", 1, 2, 3)
	l.count(t, "b", 1, 2, 3)
	<-begun
	require.False(t, standby.Stats().Active)
	awaitReady(t, standby)
	stopped := make(chan error, 1)
	go func() { stopped <- active.stop() }()
	require.Eventually(t, func() bool { return active.Ready() != nil }, soon, tick)
	require.False(t, standby.Stats().Active, "it must not take over while the other drains")
	close(finish)
	require.NoError(t, <-stopped)
	l.settled(t)
	l.requireOrder(t, 2, 3)
	require.Equal(t, uint64(1), active.Stats().Handled)
	require.Equal(t, uint64(5), standby.Stats().Handled)
}

// While one message is stuck, others are handled up to MaxAhead behind it; then
// nothing is fetched, Ready says so, and all goes on when it is done.
//
// A row of docs/DELIVERY.md.
func TestStuckHeadStopsFetchingAtMaxAhead(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks, func(c *topology.Consumer) { c.MaxAckPending = 20 })
	finish := make(chan struct{})
	r := l.run(t, l.ordered(func(c *consumer.Config) { c.Order.MaxAhead = 100 }), l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if m.Envelope.Subject == "stuck" {
			<-finish
		}
		return nil
	}))
	l.count(t, "stuck", 1)
	numbers := make([]int, 300)
	for i := range numbers {
		numbers[i] = i + 1
	}
	l.count(t, "free", numbers...)
	awaitNotReady(t, r, "100 messages")
	handled := len(l.effects("free"))
	require.GreaterOrEqual(t, handled, 80)
	require.LessOrEqual(t, handled, 120)
	close(finish)
	l.settled(t)
	awaitReady(t, r)
	require.Equal(t, numbers, l.effects("free"))
}

// An outage of what all handlers need does not bury what is held: one at a time
// is tried.
func TestMassFailureTriesOneOfTheHeldMessagesAtATime(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var broken atomic.Bool
	var tries atomic.Int64
	broken.Store(true)
	r := l.run(t, l.ordered(func(c *consumer.Config) { c.MaxAttempts, c.MassFailure = 5, 5 }), l.apply(func(context.Context, envelope.Received[numberV1]) error {
		tries.Add(1)
		if broken.Load() {
			return errBroken
		}
		return nil
	}))
	l.publishKeys(t, 50, 4)
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	require.NoError(t, pauseFor(1500*time.Millisecond)) // with a probe in it
	require.Less(t, tries.Load(), int64(40), "the outage burns attempts")
	broken.Store(false)
	l.settled(t)
	l.requireOrder(t, 50, 4)
	require.Empty(t, l.graves.all())
}

// The request that a mass failure cuts short leaves its subscription behind. What
// is fetched over the next one counts.
//
// A row of docs/DELIVERY.md.
func TestMassFailureLosesNothingThatComesAfterIt(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var broken atomic.Bool
	broken.Store(true)
	r := l.run(t, l.ordered(func(c *consumer.Config) { c.MassFailure = 2 }), l.apply(func(context.Context, envelope.Received[numberV1]) error {
		if broken.Load() {
			return errBroken
		}
		return nil
	}))
	l.publishKeys(t, 2, 1)
	awaitNotReady(t, r, "one at a time")
	l.count(t, "behind", 1, 2, 3)
	broken.Store(false)
	l.settled(t)
	require.Equal(t, []int{1, 2, 3}, l.effects("behind"))
	require.Empty(t, l.graves.all())
}

// overtake ends the term of the active instance.
func (l *ledger) overtake(t *testing.T) {
	t.Helper()
	_, err := l.pool.Exec(t.Context(), `update messaging.inbox_leases set term = term + 1`)
	require.NoError(t, err)
}

// The lease is lost while one message is tried. It said nothing, so the next term
// tries another.
func TestProbeThatATermEndsIsMadeInTheNext(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var armed, mended atomic.Bool
	began := make(chan struct{}, 10)
	r := l.run(t, l.ordered(func(c *consumer.Config) { c.MassFailure = 2 }), l.apply(func(ctx context.Context, _ envelope.Received[numberV1]) error {
		switch {
		case mended.Load():
			return nil
		case armed.Load():
			began <- struct{}{}
			<-ctx.Done()
			mended.Store(true)
		}
		return errBroken
	}))
	l.count(t, "a", 1)
	l.count(t, "b", 1)
	awaitNotReady(t, r, "one at a time")
	armed.Store(true)
	<-began
	l.overtake(t)
	l.awaitEffects(t, "a", 1)
	l.awaitEffects(t, "b", 1)
	l.settled(t)
}

// No reset of the durable brings a replay again: it is given back.
func TestReplayThatATermEndsComesAgainAtOnce(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var again atomic.Bool
	began := make(chan struct{})
	l.run(t, l.ordered(), l.apply(func(ctx context.Context, _ envelope.Received[numberV1]) error {
		if again.Swap(true) {
			return nil
		}
		close(began)
		<-ctx.Done()
		return ctx.Err()
	}))
	l.send(t, replay(number(t, "a", 1)))
	<-began
	l.overtake(t)
	l.awaitEffects(t, "a", 1)
	l.replaysSettled(t)
	require.Equal(t, []string{letterID}, l.graves.resolvedIDs())
}

// The connection breaks while messages are held and more are on their way.
//
// A row of docs/DELIVERY.md.
func TestReconnectKeepsTheOrder(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	l := ledgerOn(t, setupOn(t, server.Connect(t).JetStream(), slowAcks, func(c *topology.Consumer) { c.MaxAckPending = 100 }))
	r := l.run(t, l.ordered(), l.apply(func(context.Context, envelope.Received[numberV1]) error {
		return pauseFor(2 * time.Millisecond)
	}))
	l.publishKeys(t, 20, 20)
	for range 3 {
		handled := r.Stats().Handled
		require.Eventually(t, func() bool { return r.Stats().Handled > handled+20 || r.Stats().Handled >= 380 }, soon, tick)
		server.Restart(t)
	}
	l.settled(t)
	l.requireOrder(t, 20, 20)
}

func pauseFor(d time.Duration) error {
	<-time.After(d)
	return nil
}

// An operator has the durable deliver its history again: the inbox absorbs it,
// and what follows keeps its order.
func TestOperatorsResetIsFollowed(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	r := l.run(t, l.ordered(), l.apply(nil))
	l.count(t, "a", 1, 2, 3)
	l.settled(t)
	_, err := l.js.ResetConsumerToSequence(t.Context(), l.declared.Stream.Name, l.declared.Durable, 1)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.Stats().Duplicates == 3 }, soon, tick, "the history is not delivered again")
	l.count(t, "a", 4, 5)
	l.awaitEffects(t, "a", 1, 2, 3, 4, 5)
	l.settled(t)
}

// The same when nothing came since the last connection, so that the server's
// numbers do not tell of the operator's reset.
func TestOperatorsResetOfAnIdleDurableIsFollowed(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	l := ledgerOn(t, setupOn(t, server.Connect(t).JetStream(), slowAcks, func(c *topology.Consumer) { c.MaxAckPending = 100 }))
	r := l.run(t, l.ordered(func(c *consumer.Config) { c.Order.LeaseTTL = 30 * time.Second }), l.apply(nil))
	l.count(t, "a", 1, 2, 3)
	l.settled(t)
	l.waiting(t, 1)
	server.Restart(t)
	l.waiting(t, 1) // the durable was reset, and nothing came
	_, err := l.js.ResetConsumerToSequence(t.Context(), l.declared.Stream.Name, l.declared.Durable, 1)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.Stats().Duplicates == 3 }, soon, tick, "the history is not delivered again")
	l.count(t, "a", 4, 5)
	l.awaitEffects(t, "a", 1, 2, 3, 4, 5)
	l.settled(t)
}

// A key may be anything that the envelope tells; a key function that panics makes
// a dead letter and holds nobody.
func TestKeyFunctionDecidesWhatKeepsItsOrder(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var order tally
	l.run(t, l.ordered(func(c *consumer.Config) {
		c.Order.Key = func(e *envelope.Envelope) string {
			if e.Subject == "bad" {
				panic("no key")
			}
			return "one"
		}
	}), l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if order.add(m.Envelope.Subject) < 3 {
			return errBroken
		}
		return nil
	}))
	l.count(t, "bad", 1)
	l.count(t, "a", 1)
	l.count(t, "b", 1)
	l.awaitEffects(t, "b", 1)
	require.Equal(t, []string{"a", "a", "a", "b", "b", "b"}, order.names())
	require.Equal(t, envelope.ClassPoison, l.graves.await(t, 1)[0].Class)
	require.False(t, slices.Contains(order.names(), "bad"))
}

// The active instance has a database and no broker. It does not keep the standby
// from work.
func TestInstanceWithoutABrokerGivesTheLeaseUp(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	l := ledgerOn(t, setupOn(t, server.Connect(t).JetStream(), slowAcks, func(c *topology.Consumer) { c.MaxAckPending = 100 }))
	link, js := linked(t, server)
	c, err := consumer.New(js, l.graves, l.ordered(), l.apply(nil))
	require.NoError(t, err)
	active := start(t, c)
	require.Eventually(t, func() bool { return active.Stats().Active }, soon, tick)
	standby := l.run(t, l.ordered(), l.apply(nil))
	l.count(t, "a", 1, 2, 3)
	l.awaitEffects(t, "a", 1, 2, 3)
	link.Cut()
	l.count(t, "a", 4, 5, 6)
	l.awaitEffects(t, "a", 1, 2, 3, 4, 5, 6)
	require.True(t, standby.Stats().Active)
	require.False(t, active.Stats().Active)
	require.Error(t, active.Ready())
}
