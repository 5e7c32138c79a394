package consumer_test

import (
	"context"
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

// askedStore tells how often it was told of starts.
type askedStore struct {
	*inbox.Inbox
	asked atomic.Int64
}

func (s *askedStore) Open(ctx context.Context, d *envelope.Delivery) (int, error) {
	defer s.asked.Add(1)
	return s.Inbox.Open(ctx, d)
}

// suspects publishes messages that a process had begun when it died. They come
// again when the function that it returns is called.
func (b *bundle) suspects(t *testing.T, in *inbox.Inbox, names ...string) (comeAgain func()) {
	t.Helper()
	durable, err := b.js.Consumer(t.Context(), b.declared.Stream.Name, b.declared.Durable)
	require.NoError(t, err)
	taken := make([]jetstream.Msg, len(names))
	for i, name := range names {
		b.publish(t, name)
		taken[i], err = durable.Next(jetstream.FetchMaxWait(soon))
		require.NoError(t, err)
		e, err := envelope.Decode(taken[i].Data())
		require.NoError(t, err)
		_, err = in.Begin(t.Context(), &envelope.Delivery{Envelope: e})
		require.NoError(t, err)
	}
	return func() {
		for _, m := range taken {
			require.NoError(t, m.Nak())
		}
	}
}

// What may have killed a process waits to run alone. One handler that does not
// return must not make everybody else wait for that.
//
// A row of docs/DELIVERY.md.
func TestHandlerThatHangsBesideACrashSuspectStopsNobody(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	store := &askedStore{Inbox: newInbox(t, pool)}
	comeAgain := b.suspects(t, store.Inbox, "suspect1", "suspect2")
	entered, leave := make(chan struct{}), make(chan struct{})
	r := b.run(t, b.config(func(c *consumer.Config) { c.Store, c.Concurrency, c.MassFailure = store, 4, 2 }),
		handle(func(_ context.Context, m received) error {
			if m.Data.Hostname == "hangs" {
				close(entered)
				<-leave
			}
			return nil
		}))
	b.publish(t, "hangs")
	<-entered
	comeAgain()
	require.Eventually(t, func() bool { return store.asked.Load() >= 2 }, soon, tick)
	b.publish(t, numbered(10)...)
	require.Eventually(t, func() bool { return r.Stats().Handled == 10 }, soon, tick, "nothing is handled any more")
	require.NoError(t, r.Ready(), "who waits for others is no failure")
	close(leave)
	b.settled(t)
	require.EqualValues(t, 13, r.Stats().Handled)
	require.Empty(t, b.graves.all())
}

// The same when it is the suspect that does not return.
func TestCrashSuspectThatHangsStopsNobody(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	in := newInbox(t, pool)
	comeAgain := b.suspects(t, in, "suspect")
	entered, leave := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	c := b.new(t, b.config(func(c *consumer.Config) { c.Store, c.Concurrency, c.HandlerTimeout = in, 4, 50*time.Millisecond }),
		handle(func(_ context.Context, m received) error {
			if m.Data.Hostname == "suspect" && first.CompareAndSwap(false, true) {
				close(entered)
				<-leave
			}
			return nil
		}))
	c.SetGrace(20 * time.Millisecond)
	r := start(t, c)
	comeAgain()
	<-entered
	b.publish(t, numbered(5)...)
	require.Eventually(t, func() bool { return r.Stats().Handled >= 5 }, soon, tick, "nothing is handled any more")
	close(leave)
	b.settled(t)
	require.Empty(t, b.graves.all())
}

func TestHandlerThatRunsAloneHasNoCompany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := consumer.NewCompany(time.Minute, time.Hour)
		first, second := c.Join(t), c.Join(t)
		alone := c.GoClear(t)
		synctest.Wait()
		third := c.GoJoin(t)
		synctest.Wait()
		first()
		first() // again
		synctest.Wait()
		require.Empty(t, alone, "beside another")
		require.Empty(t, third, "who waits to run alone is the next")
		second()
		synctest.Wait()
		require.Len(t, alone, 1)
		require.Empty(t, third, "beside one that runs alone")
		(<-alone)()
		synctest.Wait()
		require.Len(t, third, 1)
		(<-third)()
	})
}

// Whoever waits in vain holds the others up once for each handler that hangs, and
// longer each time, so that its turn comes.
func TestWaitToRunAloneIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := consumer.NewCompany(time.Second, 3*time.Second)
		closing := make(chan struct{})
		clear := func() (time.Duration, error) {
			begun := time.Now()
			_, err := c.Clear(t.Context(), closing)
			return time.Since(begun), err
		}
		hangs := c.Join(t)
		for _, limit := range []time.Duration{1, 2, 3, 3} {
			waited, err := clear()
			require.ErrorIs(t, err, consumer.ErrCrowded)
			require.Equal(t, limit*time.Second, waited)
			other := c.Join(t)
			waited, err = clear()
			require.ErrorIs(t, err, consumer.ErrCrowded)
			require.Zero(t, waited, "it hangs still")
			hangs()
			hangs = other
		}
		hangs()
		alone := <-c.GoClear(t)
		alone()
		hangs = c.Join(t)
		waited, err := clear()
		require.ErrorIs(t, err, consumer.ErrCrowded)
		require.Equal(t, time.Second, waited, "as before the first time")
		hangs()

		hangs = c.Join(t)
		time.AfterFunc(time.Millisecond, func() { close(closing) })
		waited, err = clear()
		require.Error(t, err)
		require.Equal(t, time.Millisecond, waited, "a shutdown waits for no turn")
		hangs()
	})
}
