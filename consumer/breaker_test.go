package consumer_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// When everything fails the backlog stays where it is: a handful of messages is
// spent, and the rest is handled when the cause is gone.
//
// A row of docs/DELIVERY.md.
func TestMassFailureDoesNotMoveTheBacklogToTheDeadLetters(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"transient": errBroken, "permanent": envelope.Permanent(errBroken)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var mended atomic.Bool
			r := b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.Concurrency, c.MaxAttempts = 5, 4, 3 }),
				handle(func(context.Context, received) error {
					if mended.Load() {
						return nil
					}
					return failure
				}))
			b.publish(t, numbered(300)...)
			awaitNotReady(t, r, "one at a time")
			require.ErrorIs(t, r.Ready(), errBroken)
			mended.Store(true)
			b.settled(t)
			awaitReady(t, r)
			require.LessOrEqual(t, len(b.graves.all()), 5+4+2, "the backlog went to the dead letters")
		})
	}
}

// Who says when to come again knows what is the matter, and is not the reason to
// slow everybody down.
func TestHandlersThatAskForADelayAreNoMassFailure(t *testing.T) {
	t.Parallel()
	b, log := setup(t), &book{}
	r := b.run(t, b.config(log.config(), func(c *consumer.Config) { c.MassFailure, c.Concurrency = 2, 4 }),
		handle(func(_ context.Context, m received) error {
			if m.Attempt == 1 {
				return envelope.RetryAfter(50*time.Millisecond, errBroken)
			}
			return nil
		}))
	b.publish(t, numbered(40)...)
	b.settled(t)
	require.Equal(t, uint64(40), r.Stats().Handled)
	require.Empty(t, log.lines("many messages fail"))
}

// A few bad messages among good ones are what dead letters are for.
func TestBadMessagesAmongGoodOnesDoNotSlowTheConsumerDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	log := &book{}
	b.run(t, b.config(log.config(), func(c *consumer.Config) { c.MassFailure, c.Concurrency, c.MaxAttempts = 5, 1, 4 }),
		handle(func(_ context.Context, m received) error {
			if m.Data.Hostname[0] == 'b' {
				return errBroken
			}
			return nil
		}))
	for i, name := range numbered(40) {
		if b.publish(t, name); i%10 == 0 {
			b.publish(t, "bad"+name)
		}
	}
	b.settled(t)
	require.Len(t, b.graves.all(), 4)
	require.Empty(t, log.lines("many messages fail"))
}

// One bad message alone is never taken for a mass failure, however often it
// fails: it must become a dead letter.
func TestOneBadMessageAloneIsNoMassFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.MaxAttempts = 2, 15 }),
		handle(func(context.Context, received) error { return errBroken }))
	b.publish(t, "bad")
	b.graves.await(t, 1)
	awaitReady(t, r)
}

// What was fetched before the breaker opened fails after it, all at once. None of
// that is a probe: fifteen of them made the first probe come after half a minute.
func TestStragglersDoNotKeepTheBreakerOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var all sync.WaitGroup
	all.Add(20)
	var mended atomic.Bool
	b.publish(t, numbered(40)...)
	r := b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.Concurrency = 5, 20 }),
		handle(func(context.Context, received) error {
			if mended.Load() {
				return nil
			}
			all.Done()
			all.Wait()
			mended.Store(true)
			return errBroken
		}))
	b.settled(t)
	awaitReady(t, r)
	require.EqualValues(t, 20, r.Stats().Retried)
}

// One handler that hangs must not keep what opened the breaker from being tried
// again: the others of its workers are free.
//
// A row of docs/DELIVERY.md.
func TestHandlerThatHangsDoesNotKeepTheBreakerOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	var mended atomic.Bool
	r := b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.Concurrency = 3, 4 }),
		handle(func(_ context.Context, m received) error {
			switch {
			case m.Data.Hostname == "hangs":
				close(entered)
				<-leave
			case !mended.Load():
				return errBroken
			}
			return nil
		}))
	b.publish(t, "hangs")
	<-entered
	b.publish(t, numbered(20)...)
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	mended.Store(true)
	require.Eventually(t, func() bool { return r.Stats().Handled == 20 }, soon, tick, "nothing is tried any more")
	awaitReady(t, r)
	close(leave)
	b.settled(t)
}

// A probe of which nothing is heard is not waited for without an end.
func TestProbeThatHangsIsNotTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := consumer.NewBreaker(2, 5)
		require.Equal(t, 5, b.Reserve(false))
		for range 5 {
			require.True(t, b.Arrive(false))
		}
		b.Failed("a")
		b.Failed("b")
		b.Settle()
		b.Settle()
		require.Zero(t, b.Reserve(false), "it is open")
		pass(1500 * time.Millisecond)
		require.Equal(t, 1, b.Reserve(false), "a probe, beside three that hang")
		require.True(t, b.Arrive(false))
		require.Zero(t, b.Reserve(false), "one at a time")
		pass(20 * time.Second)
		require.Zero(t, b.Reserve(false), "one at a time")
		pass(20 * time.Second)
		require.Equal(t, 1, b.Reserve(false), "the probe hangs, too")
		require.True(t, b.Arrive(false))
		b.Failed("c")
		b.Settle()
		require.Zero(t, b.Reserve(false))
		pass(2 * time.Second)
		require.Equal(t, 1, b.Reserve(false))
		b.Forgo(false, 1)
		b.Succeeded()
		require.Equal(t, 1, b.Reserve(false), "all but the four that hang")
		pass(time.Hour)
		require.Zero(t, b.Reserve(false))
	})
}

// Whoever may publish can publish nonsense. It becomes dead letters, and slows
// nobody else's messages down.
func TestMessagesThatCannotBeReadAreNoMassFailure(t *testing.T) {
	t.Parallel()
	b, log := setup(t), &book{}
	r := b.run(t, b.config(log.config(), func(c *consumer.Config) { c.MassFailure = 2 }), handle(ignore))
	for _, name := range numbered(5) {
		broken := message(t, name)
		broken.Data = []byte(`{"id":`)
		b.send(t, broken)
		forged := message(t, name)
		forged.Header.Set("tenant-id", "tenant-2")
		b.send(t, forged)
	}
	b.publish(t, numbered(5)...)
	b.settled(t)
	require.Len(t, b.graves.all(), 10)
	require.EqualValues(t, 5, r.Stats().Handled)
	require.Empty(t, log.lines("many messages fail"))
}

// deafStore takes no end of an attempt, and takes starts back once it is told to.
type deafStore struct {
	*inbox.Inbox
	back chan struct{}
}

func (deafStore) End(context.Context, *envelope.Delivery) error { return errBroken }

func (s deafStore) Undo(ctx context.Context, d *envelope.Delivery) error {
	select {
	case <-s.back:
		return s.Inbox.Undo(ctx, d)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A failure of which the store cannot be told is held until it can. The breaker
// hears of it at once: when the store is back, it would be taken for a probe that
// failed after the outage.
func TestFailureThatWaitsForTheStoreOpensTheBreakerAtOnce(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	b.publish(t, "a", "b")
	b.takeAndGiveBack(t, 2)
	store := deafStore{newInbox(t, pool), make(chan struct{})}
	var mended atomic.Bool
	r := b.run(t, b.config(func(c *consumer.Config) { c.Store, c.MassFailure = store, 2 }),
		handle(func(context.Context, received) error {
			if mended.Load() {
				return nil
			}
			return errBroken
		}))
	awaitNotReady(t, r, "one at a time")
	require.Zero(t, r.Stats().Retried)
	mended.Store(true)
	close(store.back)
	b.settled(t)
	require.Zero(t, rowsOf(t, pool, "inbox_attempts"))
}

// takeAndGiveBack makes the next n messages ones that came before.
func (b *bundle) takeAndGiveBack(t *testing.T, n int) {
	t.Helper()
	durable, err := b.js.Consumer(t.Context(), b.declared.Stream.Name, b.declared.Durable)
	require.NoError(t, err)
	var taken []jetstream.Msg
	for range n {
		m, err := durable.Next(jetstream.FetchMaxWait(soon))
		require.NoError(t, err)
		taken = append(taken, m)
	}
	for _, m := range taken {
		require.NoError(t, m.Nak())
	}
}
