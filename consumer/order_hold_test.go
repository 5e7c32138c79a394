package consumer_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// held is a consumer with HoldKey and real dead letters. Event 1 of key "bad" is
// poison until it is fixed.
type held struct {
	*ledger
	queue *dlq.Queue
	fixed atomic.Bool
	tries atomic.Int64 // of the poison
}

func setupHeld(t *testing.T, change ...func(*topology.Consumer)) *held {
	t.Helper()
	h := &held{ledger: setupLedger(t, append(change, slowAcks)...)}
	queue, err := dlq.Open(t.Context(), h.js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	h.queue = queue
	return h
}

func (h *held) start(t *testing.T, change ...func(*consumer.Config)) *running {
	t.Helper()
	c, err := consumer.New(h.js, h.queue, h.ordered(append(change, func(c *consumer.Config) { c.Order.HoldKey = true })...),
		h.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
			if m.Envelope.Subject == "bad" && m.Data.N == 1 {
				h.tries.Add(1)
				if !h.fixed.Load() {
					return envelope.Permanent(errBroken)
				}
			}
			return nil
		}))
	require.NoError(t, err)
	c.SetGlance(20 * time.Millisecond)
	r := start(t, c)
	require.Eventually(t, func() bool { return r.Stats().Active }, soon, tick)
	return r
}

// letter waits for the one dead letter.
func (h *held) letter(t *testing.T) (id string) {
	t.Helper()
	require.Eventually(t, func() bool {
		for l, err := range h.queue.List(context.Background(), dlq.Filter{}) {
			if err == nil {
				id = l.ID
			}
		}
		return id != "" && rowsOf(t, h.pool, "inbox_held_keys") == 1
	}, soon, tick)
	return id
}

func (h *held) replay(t *testing.T, id string) {
	t.Helper()
	_, err := h.queue.Replay(t.Context(), id, dlq.Request{By: "operator:ola", Reason: "looked into it, DV-412"})
	require.NoError(t, err)
}

// state waits until the letter is in a state.
func (h *held) state(t *testing.T, id string, want dlq.State) {
	t.Helper()
	require.Eventually(t, func() bool {
		l, err := h.queue.Show(context.Background(), id)
		return err == nil && l.State == want
	}, soon, tick)
}

// The key waits for the operator, other keys do not; the replay goes before what
// waits, also when that fills the durable's MaxAckPending.
//
// A row of docs/DELIVERY.md.
func TestHeldKeyWaitsForItsReplayWhichGoesFirst(t *testing.T) {
	t.Parallel()
	h := setupHeld(t, func(c *topology.Consumer) { c.MaxAckPending = 17 })
	h.start(t)
	h.count(t, "bad", 1, 2, 3, 4)
	h.count(t, "good", 1, 2, 3)
	id := h.letter(t)
	h.awaitEffects(t, "good", 1, 2, 3)
	rest := []int{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	h.count(t, "bad", rest...)
	h.settled(t) // what waits holds no places
	require.Empty(t, h.effects("bad"))
	h.fixed.Store(true)
	h.replay(t, id)
	h.awaitEffects(t, "bad", append([]int{1, 2, 3, 4}, rest...)...)
	h.state(t, id, dlq.StateResolved)
	h.settled(t)
	require.Zero(t, rowsOf(t, h.pool, "inbox_held_keys"))
}

// As many keys wait as the durable has places, and with each a message behind its
// letter. Others flow.
func TestHeldKeysWithFollowersTakeNoPlaces(t *testing.T) {
	t.Parallel()
	const places = 4
	l := setupLedger(t, slowAcks, func(c *topology.Consumer) { c.MaxAckPending = places })
	queue, err := dlq.Open(t.Context(), l.js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c, err := consumer.New(l.js, queue, l.ordered(func(c *consumer.Config) {
		c.Order.HoldKey, c.Concurrency, c.MassFailure = true, places, -1
	}), l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if m.Envelope.Subject != "good" && m.Data.N == 1 {
			return envelope.Permanent(errBroken)
		}
		return nil
	}))
	require.NoError(t, err)
	c.SetGlance(20 * time.Millisecond)
	c.SetSurvey(50 * time.Millisecond)
	start(t, c)
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		l.count(t, key, 1, 2)
	}
	require.Eventually(t, func() bool {
		return rowsOf(t, l.pool, "inbox_held_keys") == 5 && rowsOf(t, l.pool, "inbox_parked") == 5
	}, soon, tick)
	require.NoError(t, pauseFor(200*time.Millisecond)) // with surveys in it
	l.count(t, "good", 1, 2)
	l.awaitEffects(t, "good", 1, 2)
	var claimed int
	require.NoError(t, l.pool.QueryRow(t.Context(), `select count(*) from messaging.inbox_parked where claim <> ''`).Scan(&claimed))
	require.Zero(t, claimed)
	for letter, err := range queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		_, err = queue.Discard(t.Context(), letter.ID, dlq.Request{By: "operator:ola", Reason: "repaired by hand, DV-415"})
		require.NoError(t, err)
	}
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		l.awaitEffects(t, key, 2)
	}
}

// The successor of an instance that stopped knows which keys wait.
//
// A row of docs/DELIVERY.md.
func TestHeldKeyStaysHeldAfterATakeOver(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	first := h.start(t)
	h.count(t, "bad", 1, 2, 3)
	id := h.letter(t)
	require.NoError(t, first.stop())
	h.start(t)
	h.count(t, "bad", 4)
	h.count(t, "good", 1)
	h.awaitEffects(t, "good", 1)
	require.Empty(t, h.effects("bad"))
	h.fixed.Store(true)
	h.replay(t, id)
	h.awaitEffects(t, "bad", 1, 2, 3, 4)
	h.settled(t)
}

// A replay that fails again decides nothing.
func TestReplayThatFailsAgainKeepsTheKeyHeld(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	h.start(t)
	h.count(t, "bad", 1, 2)
	id := h.letter(t)
	h.replay(t, id)
	require.Eventually(t, func() bool { return h.tries.Load() == 2 }, soon, tick)
	h.state(t, id, dlq.StateOpen)
	require.Empty(t, h.effects("bad"))
	h.fixed.Store(true)
	h.replay(t, id)
	h.awaitEffects(t, "bad", 1, 2)
}

// An operator who closes the letter lets the key go on without it.
func TestHeldKeyGoesOnWhenItsLetterIsClosed(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	h.start(t)
	h.count(t, "bad", 1, 2, 3)
	_, err := h.queue.Discard(t.Context(), h.letter(t), dlq.Request{By: "operator:ola", Reason: "repaired by hand, DV-413"})
	require.NoError(t, err)
	h.awaitEffects(t, "bad", 2, 3)
	h.settled(t)
	require.Zero(t, rowsOf(t, h.pool, "inbox_held_keys"))
}

// The key was noted as held, and the process died before the message was
// terminated. The message comes again; it must not wait for itself.
func TestMessageThatHoldsItsKeyDoesNotWaitForItself(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	h.fixed.Store(true)
	head := number(t, "bad", 1)
	h.send(t, head)
	h.count(t, "bad", 2, 3)
	e, err := envelope.Decode(head.Data)
	require.NoError(t, err)
	f, _, ok, err := h.in.Acquire(t.Context(), h.declared.Stream.Name+"/"+h.declared.Durable, "the dead", time.Second)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, h.in.Hold(t.Context(), f, envelope.HeldKey{Key: "bad", LetterID: letterID, Source: "maskin", MessageID: e.ID}))
	require.NoError(t, h.in.Release(t.Context(), f))
	h.start(t)
	h.awaitEffects(t, "bad", 1, 2, 3)
	h.settled(t)
	require.Zero(t, rowsOf(t, h.pool, "inbox_held_keys"))
}

// Replays of other letters than the one that holds the key are given back. They
// were not tried, so they are no failures.
func TestReplaysThatWaitForAnotherLetterAreNoMassFailure(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	r := h.start(t, func(c *consumer.Config) { c.MassFailure = 3 })
	h.count(t, "bad", 1)
	h.letter(t)
	for n := range 4 {
		m, letter := replay(number(t, "bad", 2)), fmt.Sprintf("%s%d", letterID[:len(letterID)-1], n)
		m.Header.Set("Dv-Letter-Id", letter)
		m.Header.Set("Nats-Msg-Id", letter+"/r1")
		h.send(t, m)
	}
	require.Eventually(t, func() bool { return r.Stats().Released >= 4 }, soon, tick)
	awaitReady(t, r)
}

// raised2 is a version that nobody here handles.
var raised2 = envelope.MustEvent[numberV1](envelope.EventSpec{Service: subject.Maskin, Entity: "counter", Verb: "raised", Version: 2})

// What nobody handles becomes a dead letter when it is the first of its key. It
// does not take the key from the letter that holds it, whose replay is the only
// thing that may go on.
func TestFollowerThatNobodyHandlesLeavesTheKeyToTheHead(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	h.start(t)
	h.count(t, "bad", 1)
	id := h.letter(t)
	h.send(t, draft(t, raised2.New("bad", numberV1{N: 2})))
	h.count(t, "bad", 3)
	h.settled(t)
	require.Equal(t, id, h.holder(t))
	h.fixed.Store(true)
	h.replay(t, id)
	h.awaitEffects(t, "bad", 1)
	h.state(t, id, dlq.StateResolved)
	var second string
	require.Eventually(t, func() bool {
		second = h.holder(t)
		return second != "" && second != id
	}, soon, tick)
	require.Equal(t, []int{1}, h.effects("bad"))
	_, err := h.queue.Discard(t.Context(), second, dlq.Request{By: "operator:ola", Reason: "not wanted, DV-414"})
	require.NoError(t, err)
	h.awaitEffects(t, "bad", 1, 3)
}

// The head is parked, so its key does not wait for the letter of a follower.
func TestFollowerThatNobodyHandlesDoesNotHoldAParkedHead(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var ready atomic.Bool
	l.run(t, l.ordered(parking), l.postpone(&ready))
	l.count(t, "bad", 1)
	l.settled(t)
	l.send(t, draft(t, raised2.New("bad", numberV1{N: 2})))
	l.settled(t)
	require.Empty(t, l.graves.all())
	require.Equal(t, 2, rowsOf(t, l.pool, "inbox_parked"))
	ready.Store(true)
	l.awaitEffects(t, "bad", 1)
	l.graves.await(t, 1)
}

// holder is the letter that holds the one key, "" if none does.
func (h *held) holder(t *testing.T) (id string) {
	t.Helper()
	require.NoError(t, h.pool.QueryRow(t.Context(), `select coalesce((select letter_id from messaging.inbox_held_keys), '')`).Scan(&id))
	return id
}
