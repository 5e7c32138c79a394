package consumer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

// replay makes what an operator's replay publishes.
func replay(original *nats.Msg) *nats.Msg {
	m := &nats.Msg{Subject: "dv.plattform.replay.plattform__from_maskin", Header: nats.Header{}, Data: original.Data}
	for name, values := range original.Header {
		m.Header[name] = values
	}
	m.Header.Set("Nats-Msg-Id", letterID+"/r1")
	m.Header.Set("Dv-Letter-Id", letterID)
	m.Header.Set("Dv-Original-Subject", original.Subject)
	m.Header.Set("Dv-Original-Stream", "DV_MASKIN_EVT")
	m.Header.Set("Dv-Original-Sequence", "42")
	return m
}

func TestReplayIsHandledAsTheOriginalAndResolved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	deliveries := make(chan received, 1)
	r := b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		deliveries <- m
		return nil
	}))
	original := message(t, "h1")
	b.send(t, replay(original))
	got := <-deliveries
	require.Equal(t, original.Subject, got.Subject.String())
	require.Equal(t, letterID, got.LetterID)
	require.Equal(t, "h1", got.Data.Hostname)
	require.Equal(t, b.declared.Durable, got.Durable)
	require.Equal(t, "DV_PLATTFORM_DLQOPS", got.Stream)
	b.replaysSettled(t)
	require.Equal(t, []string{letterID}, b.graves.resolvedIDs())
	require.Equal(t, uint64(1), r.Stats().Handled)
}

func TestReplayOfSomethingProcessedIsResolvedToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(func(context.Context, received) error { return envelope.ErrAlreadyProcessed }))
	b.send(t, replay(message(t, "a")))
	b.replaysSettled(t)
	require.Equal(t, []string{letterID}, b.graves.resolvedIDs())
	require.Equal(t, uint64(1), r.Stats().Duplicates)
}

func TestFailedReplayBecomesTheSameLetterAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, b.config(), handle(func(context.Context, received) error { return envelope.Permanent(errBroken) }))
	original := message(t, "a")
	b.send(t, replay(original))
	f := b.graves.await(t, 1)[0]
	b.replaysSettled(t)
	require.Equal(t, letterID, f.LetterID)
	require.Equal(t, original.Subject, f.Subject)
	require.Equal(t, "DV_MASKIN_EVT", f.Stream)
	require.Equal(t, uint64(42), f.Sequence)
	require.Equal(t, b.declared.Durable, f.Durable)
	require.Equal(t, original.Data, f.Data)
	require.Empty(t, b.graves.resolvedIDs())
}

// A replay is checked like the original: a letter whose message contradicted
// itself does not slip through because an operator replayed it.
func TestReplayIsCheckedLikeTheOriginal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, b.config(), handle(func(context.Context, received) error { return errors.New("must not run") }))
	forged := message(t, "a")
	forged.Header.Set("tenant-id", "tenant-2")
	b.send(t, replay(forged))
	f := b.graves.await(t, 1)[0]
	require.Equal(t, envelope.ClassSecurity, f.Class)
	require.Equal(t, letterID, f.LetterID)
	b.replaysSettled(t)
}

// The letter is resolved before the replay is acknowledged. A store that refuses
// that is no failure of the handler: it has handled the message, and neither
// runs again nor loses it to a dead letter.
func TestHandledReplayWaitsUntilItsLetterIsResolved(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.graves.set(nil, errors.New("marks are refused"))
	r := b.run(t, b.config(func(c *consumer.Config) { c.MaxAttempts = 1 }), handle(func(_ context.Context, m received) error {
		starts.add(m.Data.Hostname)
		return nil
	}))
	b.send(t, replay(message(t, "a")))
	require.Eventually(t, func() bool { return b.graves.attempts() >= 5 }, soon, tick) // more than AckWait
	require.ErrorContains(t, r.Ready(), "marks are refused")
	b.graves.set(nil, nil)
	b.replaysSettled(t)
	require.Equal(t, []string{"a"}, starts.names())
	require.Equal(t, []string{letterID}, b.graves.resolvedIDs())
	require.Empty(t, b.graves.all())
	require.Zero(t, r.Stats().Retried)
	require.Equal(t, uint64(1), r.Stats().Handled)
	awaitReady(t, r)
}

func TestShutdownGivesBackAReplayWhoseLetterIsNotResolved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.graves.set(nil, errors.New("marks are refused"))
	r := b.run(t, b.config(func(c *consumer.Config) { c.DrainTimeout = 50 * time.Millisecond }), handle(ignore))
	b.send(t, replay(message(t, "a")))
	require.Eventually(t, func() bool { return b.graves.attempts() >= 1 }, soon, tick)
	require.NoError(t, r.stop())
	require.Equal(t, uint64(1), r.Stats().Released)
	require.Zero(t, r.Stats().Handled)
}

func TestLetterThatCanNotBeResolvedAnyMoreDoesNotRepeatTheReplay(t *testing.T) {
	t.Parallel()
	b, starts := setup(t), &tally{}
	b.graves.set(nil, envelope.Permanent(errors.New("discarded")))
	b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		starts.add(m.Data.Hostname)
		return nil
	}))
	b.send(t, replay(message(t, "a")))
	b.replaysSettled(t)
	require.Len(t, starts.names(), 1)
	require.Empty(t, b.graves.all())
}

// A hand-written message on the replay subject names no letter, so there is
// nothing to bury it as. It must not stop the consumer either.
func TestMalformedReplayIsRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(func(context.Context, received) error { return errors.New("must not run") }))
	for header, value := range map[string]string{
		"Dv-Letter-Id":        "",
		"Dv-Original-Subject": "",
		"dv-letter-id":        "ignored: the right one is there",
	} {
		m := replay(message(t, "a"))
		m.Header.Set(header, value)
		m.Header.Del("Nats-Msg-Id")
		b.send(t, m)
	}
	looping := replay(message(t, "a")) // could be neither handled nor buried
	looping.Header.Set("Dv-Original-Subject", looping.Subject)
	looping.Header.Del("Nats-Msg-Id")
	b.send(t, looping)
	require.Eventually(t, func() bool { return r.Stats().Rejected == 3 }, soon, tick)
	b.replaysSettled(t)
	require.Equal(t, envelope.ClassSecurity, b.graves.await(t, 1)[0].Class, "of the doubled header")
	awaitReady(t, r)
}

// Main and replay share one worker: a replay does not wait for a busy main pull
// for longer than one message, nor for an idle one at all.
func TestReplayPassesABacklogWithOneWorker(t *testing.T) {
	t.Parallel()
	b, starts := setup(t, func(c *topology.Consumer) { c.MaxAckPending = 1 }), &tally{}
	running := make(chan struct{}, 1)
	running <- struct{}{}
	b.publish(t, numbered(300)...)
	b.send(t, replay(message(t, "replayed")))
	b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		select {
		case <-running:
		default:
			return errors.New("two at once")
		}
		starts.add(m.Data.Hostname)
		running <- struct{}{}
		return nil
	}))
	b.replaysSettled(t)
	require.Less(t, len(starts.names()), 300, "the backlog was not waited for")
	b.settled(t)
	require.Len(t, starts.names(), 301)
}

func TestReplayArrivesWhileTheMainPullIsIdle(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(func(c *consumer.Config) { c.Concurrency = 1 }), handle(ignore))
	b.send(t, replay(message(t, "a")))
	b.replaysSettled(t)
	require.Equal(t, uint64(1), r.Stats().Handled)
}
