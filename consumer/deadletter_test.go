package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// poison buries what is called bad… and handles the rest.
func poison(starts *tally) envelope.Route {
	return handle(func(_ context.Context, m received) error {
		if starts.add(m.Data.Hostname); strings.HasPrefix(m.Data.Hostname, "bad") {
			return envelope.Permanent(errBroken)
		}
		return nil
	})
}

// While dead letters are refused the poison stays in progress for longer than
// AckWait without being tried again, nothing new is fetched, and Ready says why.
// Then everything goes on and nothing is lost.
//
// A row of docs/DELIVERY.md.
func TestRefusedDeadLettersPauseTheConsumer(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.graves.set(errors.New("stream is full"), nil)
	r := b.run(t, b.config(func(c *consumer.Config) { c.Concurrency = 1 }), poison(starts))
	b.publish(t, "bad")
	require.Eventually(t, func() bool { return b.graves.attempts() >= 5 }, soon, tick) // more than AckWait
	b.publish(t, "good1", "good2")

	require.ErrorContains(t, r.Ready(), "stream is full")
	require.ErrorContains(t, r.Ready(), "1 messages wait")
	info, err := b.info()
	require.NoError(t, err)
	require.Equal(t, 1, info.NumAckPending)
	require.Zero(t, info.NumRedelivered)
	require.Equal(t, []string{"bad"}, starts.names())

	b.graves.set(nil, nil)
	b.settled(t)
	require.Equal(t, []string{"bad", "good1", "good2"}, starts.names())
	require.Len(t, b.graves.all(), 1)
	awaitReady(t, r)
}

// What an operator replays is handled meanwhile by a free worker.
func TestRefusedDeadLettersDoNotStopReplays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.graves.set(errors.New("stream is full"), nil)
	r := b.run(t, b.config(func(c *consumer.Config) { c.Concurrency = 2 }), poison(&tally{}))
	b.publish(t, "bad")
	require.Eventually(t, func() bool { return b.graves.attempts() >= 1 }, soon, tick)
	for _, id := range []string{"/r1", "/r2", "/r3"} {
		m := replay(message(t, "good"))
		m.Header.Set("Nats-Msg-Id", letterID+id)
		b.send(t, m)
	}
	b.replaysSettled(t)
	require.Len(t, b.graves.resolvedIDs(), 3)
	require.ErrorContains(t, r.Ready(), "stream is full", "still")
}

// Free workers do not change that: beyond what the open request had asked for,
// nothing is fetched.
func TestRefusedDeadLettersPauseIdleWorkersToo(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.graves.set(errors.New("stream is full"), nil)
	r := b.run(t, b.config(func(c *consumer.Config) { c.Concurrency = 3 }), poison(starts))
	b.publish(t, "bad")
	require.Eventually(t, func() bool { return b.graves.attempts() >= 1 }, soon, tick)
	b.publish(t, numbered(10)...)
	require.Eventually(t, func() bool { return r.Stats().Handled == 2 }, soon, tick)
	require.Eventually(t, func() bool { return b.graves.attempts() >= 4 }, soon, tick)
	require.Len(t, starts.names(), 3)
	b.graves.set(nil, nil)
	b.settled(t)
	require.Len(t, starts.names(), 11)
}

func TestShutdownDuringARefusalGivesTheMessageBack(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.graves.set(errors.New("stream is full"), nil)
	r := b.run(t, b.config(func(c *consumer.Config) { c.DrainTimeout = 50 * time.Millisecond }), poison(starts))
	b.publish(t, "bad")
	require.Eventually(t, func() bool { return b.graves.attempts() >= 1 }, soon, tick)
	require.NoError(t, r.stop())
	require.Equal(t, uint64(1), r.Stats().Released)

	b.graves.set(nil, nil)
	b.run(t, b.config(), poison(starts))
	b.settled(t)
	require.Len(t, b.graves.all(), 1)
}

// marks records in which order a message was buried.
type marks struct {
	mu    sync.Mutex
	steps []string
}

func (m *marks) add(step string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps = append(m.steps, step)
}

func (m *marks) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.steps...)
}

// The letter is stored, then the handler's store marks the message, then the
// original is terminated; a store that is down is waited for, and no second
// letter is written meanwhile.
//
// A row of docs/DELIVERY.md.
func TestTheHandlersStoreIsMarkedBeforeTheOriginalIsTerminated(t *testing.T) {
	t.Parallel()
	b, steps := setup(t), &marks{}
	route := handle(func(context.Context, received) error { return envelope.Permanent(errBroken) })
	route.MarkDead = func(ctx context.Context, d *envelope.Delivery, letter string) error {
		require.NotNil(t, d.Envelope)
		info, err := b.info()
		if err != nil || info.NumAckPending != 1 {
			return errors.Join(err, errors.New("the original is gone"))
		}
		steps.add(letter)
		switch len(steps.all()) {
		case 1:
			return errors.New("database is down")
		case 2:
			panic("boom")
		}
		return nil
	}
	r := b.run(t, b.config(), route)
	b.publish(t, "a")
	b.settled(t)
	require.Equal(t, []string{letterID, letterID, letterID}, steps.all())
	require.Len(t, b.graves.all(), 1)
	awaitReady(t, r)
}

// Whoever has to know of a failure is told between the letter and the mark: after
// the mark a crash would leave nobody to tell it.
func TestARouteIsToldOfItsDeadLetterBeforeItIsMarked(t *testing.T) {
	t.Parallel()
	b, steps := setup(t), &marks{}
	route := handle(func(context.Context, received) error { return envelope.Permanent(errBroken) })
	route.OnDead = func(_ context.Context, d *envelope.Delivery, f *envelope.Failure, letter string) error {
		steps.add("told " + letter + " " + string(f.Class) + " " + f.Err.Error() + " " + d.Envelope.Subject)
		switch len(steps.all()) {
		case 1:
			return errors.New("database is down")
		case 2:
			panic("boom")
		}
		return nil
	}
	route.MarkDead = func(context.Context, *envelope.Delivery, string) error {
		steps.add("marked")
		return nil
	}
	b.run(t, b.config(), route)
	b.publish(t, "a")
	b.settled(t)
	told := "told " + letterID + " poison broken srv-a"
	require.Equal(t, []string{told, told, told, "marked"}, steps.all())
	require.Len(t, b.graves.all(), 1)
}

// Another copy of the message had its effect while this one failed for the last
// time: a letter that stayed open would have an operator apply it again, once the
// inbox has forgotten. While the letter cannot be resolved, the message waits.
//
// A row of docs/DELIVERY.md.
func TestLetterOfAMessageWhoseEffectIsThereIsResolved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.graves.set(nil, errors.New("no leader"))
	route := handle(func(context.Context, received) error { return envelope.Permanent(errBroken) })
	route.MarkDead = func(context.Context, *envelope.Delivery, string) error {
		return fmt.Errorf("in the inbox: %w", envelope.ErrAlreadyProcessed)
	}
	r := b.run(t, b.config(), route)
	b.publish(t, "a")
	awaitNotReady(t, r, "whose effect is there: no leader")
	b.graves.set(nil, nil)
	b.settled(t)
	require.Equal(t, []string{letterID}, b.graves.resolvedIDs())
	require.Len(t, b.graves.all(), 1)
}

// A message without a handler has no store to mark.
func TestUnroutedMessageIsBuriedWithoutAStore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	route := handle(ignore)
	route.Version = 7
	route.MarkDead = func(context.Context, *envelope.Delivery, string) error { panic("must not be called") }
	b.run(t, b.config(), route)
	b.publish(t, "a")
	b.settled(t)
	require.Len(t, b.graves.all(), 1)
}

func TestPanickingDeadLettererIsRetried(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fragile := &fragileGraves{graves: b.graves}
	c, err := consumer.New(b.js, fragile, b.config(), poison(&tally{}))
	require.NoError(t, err)
	start(t, c)
	b.publish(t, "bad")
	b.graves.await(t, 1)
	b.settled(t)
}

// fragileGraves panics, then answers without an id, then works.
type fragileGraves struct {
	*graves
	calls int
}

func (g *fragileGraves) DeadLetter(ctx context.Context, f *envelope.Failure) (string, error) {
	switch g.calls++; g.calls {
	case 1:
		panic("boom")
	case 2:
		return "", nil
	}
	return g.graves.DeadLetter(ctx, f)
}

// Whoever may publish on the stream may set headers. They must neither pass for
// another tenant's message nor for a status of the server, nor revive a letter.
//
// A row of docs/DELIVERY.md.
func TestContradictingHeadersAndSubjectsAreASecurityMatter(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.run(t, b.config(), poison(starts))

	tenant := message(t, "tenant")
	tenant.Header.Set("tenant-id", "tenant-2")
	b.send(t, tenant)
	twice := message(t, "twice")
	twice.Header["X-Correlation-Id"] = append(twice.Header["X-Correlation-Id"], "other")
	b.send(t, twice)
	elsewhere := message(t, "elsewhere")
	elsewhere.Subject = "dv.maskin.evt.disk.removed" // type and subject still agree on the service
	b.send(t, elsewhere)
	alien := message(t, "alien")
	env, err := envelope.Decode(alien.Data)
	require.NoError(t, err)
	alien.Data = []byte(strings.Replace(string(alien.Data), `"source":"maskin"`, `"source":"objekt"`, 1))
	require.NotNil(t, env)
	alien.Header.Del("Dv-Source")
	b.send(t, alien)

	for _, f := range b.graves.await(t, 3) {
		require.Equal(t, envelope.ClassSecurity, f.Class, "%v", f.Err)
		require.NotNil(t, f.Envelope)
	}
	b.settled(t)
	require.Equal(t, []string{"elsewhere"}, starts.names())
}

// The client library takes a message without a body for a status of the server
// when it has a Status header. Such a message would be redelivered for ever and
// seen by nobody.
func TestForgedStatusIsADeadLetterAndNotAStatus(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	r := b.run(t, b.config(), poison(starts))
	for _, code := range []string{"100", "404", "408", "409", "503"} {
		forged := message(t, code)
		forged.Data = nil
		forged.Header.Set("Status", code)
		forged.Header.Set("Description", "Consumer Deleted")
		b.send(t, forged)
	}
	for _, f := range b.graves.await(t, 5) {
		require.Equal(t, envelope.ClassDecode, f.Class)
	}
	b.publish(t, "good")
	b.settled(t)
	awaitReady(t, r)
	require.Equal(t, []string{"good"}, starts.names())
}

func TestLetterIDOfAnOrdinaryDeliveryIsForeignText(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := make(chan string, 1)
	b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		letters <- m.LetterID
		return nil
	}))
	forged := message(t, "a")
	forged.Header.Set("Nats-Msg-Id", letterID+"/r1")
	forged.Header.Set("Dv-Letter-Id", letterID)
	forged.Header.Set("Dv-Original-Subject", "dv.maskin.evt.server.removed")
	b.send(t, forged)
	require.Empty(t, <-letters)
	b.settled(t)
	require.Empty(t, b.graves.resolvedIDs())
}

// A message whose sender is ahead of this service is about something that the routes
// of its type know; one of another type is not.
func TestARouteHearsOfAVersionOfItsTypeThatNobodyHandles(t *testing.T) {
	t.Parallel()
	b, told := setup(t), &marks{}
	route := handle(func(context.Context, received) error { return nil })
	route.OnDead = func(_ context.Context, d *envelope.Delivery, f *envelope.Failure, letter string) error {
		told.add("told " + letter + " " + string(f.Class) + " " + d.Envelope.Subject)
		return nil
	}
	route.MarkDead = func(context.Context, *envelope.Delivery, string) error {
		told.add("marked")
		return nil
	}
	b.run(t, b.config(), route)
	b.send(t, draft(t, provisioned2.New("srv-b", serverV2{"b"})))
	moved := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "moved", Version: 1})
	b.send(t, draft(t, moved.New("srv-c", serverV1{})))
	b.graves.await(t, 2)
	b.settled(t)
	require.Equal(t, []string{"told " + letterID + " decode srv-b"}, told.all())
}
