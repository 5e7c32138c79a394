package consumer_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestHandlerGetsDataDeliveryAndOrigin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := message(t, "h1")
	m.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	type call struct {
		received
		origin   envelope.Origin
		deadline bool
	}
	calls := make(chan call, 1)
	r := b.run(t, b.config(), handle(func(ctx context.Context, m received) error {
		origin, _ := envelope.OriginFrom(ctx)
		_, deadline := ctx.Deadline()
		calls <- call{m, origin, deadline}
		return nil
	}))
	b.send(t, m)
	got := <-calls
	require.Equal(t, "h1", got.Data.Hostname)
	require.Equal(t, provisioned.Subject(), got.Subject)
	require.Equal(t, "DV_MASKIN_EVT", got.Stream)
	require.Equal(t, uint64(1), got.Sequence)
	require.Equal(t, b.declared.Durable, got.Durable)
	require.Equal(t, 1, got.Attempt)
	require.Empty(t, got.LetterID)
	require.True(t, got.deadline)
	require.Equal(t, envelope.Origin{
		CorrelationID: got.Envelope.CorrelationID, CausationID: got.Envelope.ID, Actor: "user:ola", TenantID: "tenant-1",
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}, got.origin)
	b.settled(t)
	require.NoError(t, r.stop())
	require.Equal(t, uint64(1), r.Stats().Handled)
	require.Zero(t, r.Stats().InFlight)
}

// A row of docs/DELIVERY.md.
func TestFailureIsRetriedUntilItSucceeds(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	attempts := make(chan int, 10)
	r := b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		attempts <- m.Attempt
		if starts.add(m.Data.Hostname) < 3 {
			return errBroken
		}
		return nil
	}))
	b.publish(t, "a")
	for want := 1; want <= 3; want++ {
		require.Equal(t, want, <-attempts)
	}
	b.settled(t)
	require.Equal(t, uint64(2), r.Stats().Retried)
	require.Empty(t, b.graves.all())
}

func TestAlreadyProcessedIsAcknowledged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(func(context.Context, received) error { return envelope.ErrAlreadyProcessed }))
	b.publish(t, "a")
	b.settled(t)
	require.Equal(t, consumer.Stats{Duplicates: 1, Requests: r.Stats().Requests}, r.Stats())
}

// A row of docs/DELIVERY.md.
func TestPermanentBecomesADeadLetterAtOnce(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	r := b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		starts.add(m.Data.Hostname)
		return envelope.Permanent(errBroken)
	}))
	sent := message(t, "a")
	sent.Header.Set("X-Foreign", "kept")
	b.send(t, sent)
	f := b.graves.await(t, 1)[0]
	b.settled(t)
	require.Equal(t, []string{"a"}, starts.names())
	require.Equal(t, envelope.ClassPoison, f.Class)
	require.ErrorIs(t, f.Err, errBroken)
	require.Equal(t, sent.Data, f.Data)
	require.Equal(t, "kept", f.Header.Get("X-Foreign"))
	require.Equal(t, sent.Subject, f.Subject)
	require.Equal(t, "DV_MASKIN_EVT", f.Stream)
	require.Equal(t, uint64(1), f.Sequence)
	require.Equal(t, b.declared.Durable, f.Durable)
	require.Equal(t, 1, f.Attempts)
	require.NotNil(t, f.Envelope)
	require.WithinDuration(t, time.Now(), f.StoredAt, time.Minute)
	require.WithinDuration(t, time.Now(), f.FirstAt, time.Minute)
	require.False(t, f.LastAt.Before(f.FirstAt))
	require.Empty(t, f.LetterID)
	require.Equal(t, uint64(1), r.Stats().DeadLetters)
}

// A row of docs/DELIVERY.md.
func TestExhaustedAttemptsBecomeADeadLetter(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.run(t, b.config(func(c *consumer.Config) { c.MaxAttempts = 3 }), handle(func(_ context.Context, m received) error {
		starts.add(m.Data.Hostname)
		return errBroken
	}))
	b.publish(t, "a")
	f := b.graves.await(t, 1)[0]
	b.settled(t)
	require.Len(t, starts.names(), 3)
	require.Equal(t, envelope.ClassExhausted, f.Class)
	require.Equal(t, 3, f.Attempts)
	require.ErrorIs(t, f.Err, errBroken)
}

// A message that was delivered more often than it may be tried killed or
// outlived every process that touched it. It is buried without another start.
func TestDeliveryBeyondTheLastAttemptIsNotStarted(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.publish(t, "a")
	b.deliverTimes(t, 3)
	b.run(t, b.config(func(c *consumer.Config) { c.MaxAttempts = 3 }), handle(func(_ context.Context, m received) error {
		starts.add(m.Data.Hostname)
		return nil
	}))
	f := b.graves.await(t, 1)[0]
	b.settled(t)
	require.Equal(t, envelope.ClassExhausted, f.Class)
	require.ErrorContains(t, f.Err, "delivered 4 times")
	require.Empty(t, starts.names())
}

// deliverTimes takes the durable's next message n times and gives it back.
func (b *bundle) deliverTimes(t *testing.T, n int) {
	t.Helper()
	c, err := b.js.Consumer(t.Context(), b.declared.Stream.Name, b.declared.Durable)
	require.NoError(t, err)
	for range n {
		m, err := c.Next()
		require.NoError(t, err)
		require.NoError(t, m.Nak())
	}
}

func TestRetryAfterKeepsItsDelay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const delay = 300 * time.Millisecond
	starts := make(chan time.Time, 2)
	b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		starts <- time.Now()
		if m.Attempt == 1 {
			return envelope.RetryAfter(delay, nil)
		}
		return nil
	}))
	b.publish(t, "a")
	first := <-starts
	require.GreaterOrEqual(t, (<-starts).Sub(first), delay)
}

func TestPanicIsRetried(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(func(c *consumer.Config) { c.MaxAttempts = 2 }), handle(func(context.Context, received) error {
		panic("boom")
	}))
	b.publish(t, "a")
	f := b.graves.await(t, 1)[0]
	b.settled(t)
	require.Equal(t, envelope.ClassExhausted, f.Class)
	_, ok := errors.AsType[*consumer.PanicError](f.Err)
	require.True(t, ok)
	require.Equal(t, uint64(1), r.Stats().Retried)
}

// A handler under test may call FailNow, which ends its goroutine without a
// panic. The message must be settled and the slot freed all the same.
// A nil pointer in an error is not nil, and reading its text panics.
func TestTypedNilErrorDoesNotEndTheProcess(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		var err *typedNil
		if m.Attempt == 2 {
			return envelope.Permanent(err)
		}
		return err
	}))
	b.publish(t, "a")
	b.settled(t)
	require.Equal(t, uint64(1), r.Stats().Retried)
	f := b.graves.await(t, 1)[0]
	require.Equal(t, envelope.ClassPoison, f.Class)
	require.ErrorContains(t, f.Err, "*consumer_test.typedNil")
}

func TestGoexitIsAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		if m.Attempt == 1 {
			runtime.Goexit()
		}
		return nil
	}))
	b.publish(t, "a")
	b.settled(t)
	require.Equal(t, uint64(1), r.Stats().Handled)
	require.NoError(t, r.stop())
}

// The worker that the handler took with it does what is left to do on its way out.
func TestGoexitAtTheLastAttemptIsADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(func(c *consumer.Config) { c.Concurrency, c.MaxAttempts = 1, 1 }), handle(func(_ context.Context, m received) error {
		if m.Data.Hostname == "a" {
			runtime.Goexit()
		}
		return nil
	}))
	b.publish(t, "a", "b")
	b.settled(t)
	require.Len(t, b.graves.all(), 1)
	require.ErrorContains(t, b.graves.all()[0].Err, "Goexit")
	require.Equal(t, uint64(1), r.Stats().Handled)
	require.NoError(t, r.stop())
}

// A row of docs/DELIVERY.md.
func TestPoisonDoesNotStopTheGood(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	names := numbered(60)
	b.publish(t, names...)
	b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		if starts.add(m.Data.Hostname); m.Sequence%10 == 0 {
			return envelope.Permanent(errBroken)
		}
		return nil
	}))
	b.settled(t)
	require.Len(t, b.graves.all(), 6)
	require.ElementsMatch(t, names, starts.names(), "each message was started once")
}

// The handler takes longer than AckWait; the heartbeat keeps the message from being
// handled a second time beside it. AckWait leaves room for a beat that is late.
//
// A row of docs/DELIVERY.md.
func TestHandlerSlowerThanAckWaitRunsOnce(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	r := b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		starts.add(m.Data.Hostname)
		<-time.After(b.declared.AckWait * 4 / 3)
		return nil
	}))
	b.publish(t, "a")
	require.Eventually(t, func() bool { return r.Stats().Handled == 1 }, soon, tick)
	b.settled(t)
	require.Equal(t, []string{"a"}, starts.names())
	info, err := b.info()
	require.NoError(t, err)
	require.Equal(t, uint64(1), info.Delivered.Consumer, "one delivery")
}

// A handler that hangs and ignores its ctx must not hold the message for ever:
// after HandlerTimeout it is no longer kept in progress.
//
// A row of docs/DELIVERY.md.
func TestHangingHandlerLosesTheMessageAfterItsTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *topology.Consumer) { c.AckWait = 300 * time.Millisecond })
	released, attempts := make(chan struct{}), make(chan int, 2)
	b.run(t, b.config(func(c *consumer.Config) { c.HandlerTimeout = 50 * time.Millisecond }),
		handle(func(_ context.Context, m received) error {
			attempts <- m.Attempt
			if m.Attempt == 1 {
				<-released
			}
			return nil
		}))
	b.publish(t, "a")
	defer close(released)
	require.Equal(t, 1, <-attempts)
	select {
	case attempt := <-attempts:
		require.Equal(t, 2, attempt, "another worker got it while the first still hangs")
	case <-time.After(soon):
		t.Fatal("the hanging handler still holds the message")
	}
	b.settled(t) // by the second delivery
}

func TestHandlerTimeoutIsRetried(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(func(c *consumer.Config) { c.HandlerTimeout = 20 * time.Millisecond }),
		handle(func(ctx context.Context, m received) error {
			if m.Attempt == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}))
	b.publish(t, "a")
	b.settled(t)
	require.Equal(t, uint64(1), r.Stats().Retried)
	require.Equal(t, uint64(1), r.Stats().Handled)
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, leave := make(chan string, 40), make(chan struct{})
	b.publish(t, numbered(30)...)
	r := b.run(t, b.config(func(c *consumer.Config) { c.Concurrency = 4 }), handle(func(_ context.Context, m received) error {
		entered <- m.Data.Hostname
		<-leave
		return nil
	}))
	for range 4 {
		<-entered
	}
	info, err := b.info()
	require.NoError(t, err)
	require.Equal(t, 4, info.NumAckPending, "nothing is fetched that no worker is free for")
	require.Empty(t, entered)
	require.Equal(t, 4, r.Stats().InFlight)
	close(leave)
	b.settled(t)
}

// With MaxAckPending 1 the failing head is tried again before its followers are
// seen.
func TestOneInFlightKeepsTheOrderAcrossRetries(t *testing.T) {
	t.Parallel()
	b, starts := setup(t, func(c *topology.Consumer) { c.MaxAckPending = 1 }), &tally{}
	b.publish(t, "a", "b", "c")
	b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		if n := starts.add(m.Data.Hostname); m.Data.Hostname == "a" && n < 3 {
			return errBroken
		}
		return nil
	}))
	b.settled(t)
	require.Equal(t, []string{"a", "a", "a", "b", "c"}, starts.names())
}

// A row of docs/DELIVERY.md.
func TestUndecodableBytesBecomeADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, b.config(), handle(func(context.Context, received) error { return errors.New("must not run") }))
	broken := message(t, "a")
	broken.Data = []byte(`{"id":`)
	b.send(t, broken)
	empty := message(t, "b")
	empty.Data = nil
	b.send(t, empty)
	ill := message(t, "c")
	ill.Header["X-A"] = []string{"1", "2"} // legal, and has crashed others
	ill.Data = []byte("\x00\xff")
	b.send(t, ill)
	for _, f := range b.graves.await(t, 3) {
		require.Equal(t, envelope.ClassDecode, f.Class)
		require.Nil(t, f.Envelope)
		require.Equal(t, 1, f.Attempts)
	}
	b.settled(t)
}

func TestDataThatDoesNotFitTheTypeBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, b.config(), handle(func(context.Context, received) error { return errors.New("must not run") }))
	m := message(t, "a")
	env, err := envelope.Decode(m.Data)
	require.NoError(t, err)
	env.Data = []byte(`{"hostname":7}`)
	m.Data, err = env.Encode()
	require.NoError(t, err)
	b.send(t, m)
	f := b.graves.await(t, 1)[0]
	require.Equal(t, envelope.ClassDecode, f.Class)
	require.NotNil(t, f.Envelope)
	b.settled(t)
}

// A row of docs/DELIVERY.md.
func TestUnknownTypeAndVersionBecomeADeadLetterThatNamesTheRoutes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, b.config(), handle(ignore))
	removed := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "removed", Version: 1})
	newer := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2})
	for i, typ := range []envelope.Type[serverV1]{removed, newer} {
		b.send(t, draft(t, typ.New("srv", serverV1{})))
		f := b.graves.await(t, i+1)[i]
		require.Equal(t, envelope.ClassDecode, f.Class)
		require.ErrorContains(t, f.Err, typ.String())
		require.ErrorContains(t, f.Err, "this consumer handles ")
	}
	b.settled(t)
}

// The route for the rest takes every type that has no route. A version that a typed
// handler does not know must not vanish there.
func TestOnAnyTakesWhatNoOtherRouteDoes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	removed := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "removed", Version: 1})
	newer := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2})
	var own, rest tally
	b.run(t, b.config(),
		handle(func(_ context.Context, m received) error { own.add(m.Envelope.Type); return nil }),
		consumer.OnAny(func(_ context.Context, d *envelope.Delivery) error {
			rest.add(d.Envelope.Type)
			return nil
		}))
	for _, typ := range []envelope.Type[serverV1]{provisioned, newer, removed} {
		b.send(t, draft(t, typ.New("srv", serverV1{})))
	}
	b.settled(t)
	require.Equal(t, []string{provisioned.Name()}, own.names())
	require.Equal(t, []string{removed.Name()}, rest.names())
	require.Len(t, b.graves.all(), 1)
	require.ErrorContains(t, b.graves.all()[0].Err, newer.String())

	_, err := consumer.New(b.js, b.graves, b.config(), consumer.OnAny(nil))
	require.ErrorContains(t, err, "has no handler")
	both := consumer.OnAny(func(context.Context, *envelope.Delivery) error { return nil })
	_, err = consumer.New(b.js, b.graves, b.config(), both, both)
	require.ErrorContains(t, err, "is routed twice")
}
