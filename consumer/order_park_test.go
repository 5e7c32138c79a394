package consumer_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/topology"
)

// postpone asks for a long delay for event 1 of key "bad" until it is ready.
func (l *ledger) postpone(ready *atomic.Bool) envelope.Route {
	return l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if m.Envelope.Subject == "bad" && m.Data.N == 1 && !ready.Load() {
			return envelope.RetryAfter(300*time.Millisecond, errBroken)
		}
		return nil
	})
}

func parking(c *consumer.Config) { c.ParkAfter = 50 * time.Millisecond }

// What waits for long is parked with its followers: nothing holds places of the
// durable, other keys flow, and the order is kept, also for what comes later.
//
// A row of docs/DELIVERY.md.
func TestParkedHeadTakesItsFollowersAlongAndKeepsTheirOrder(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks, func(c *topology.Consumer) { c.MaxAckPending = 4 })
	var ready atomic.Bool
	r := l.run(t, l.ordered(parking, func(c *consumer.Config) { c.Concurrency = 4 }), l.postpone(&ready))
	numbers := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	l.count(t, "bad", numbers...)
	l.count(t, "good", 1, 2, 3)
	l.settled(t)
	require.Equal(t, []int{1, 2, 3}, l.effects("good"))
	require.Empty(t, l.effects("bad"))
	require.Equal(t, len(numbers), rowsOf(t, l.pool, "inbox_parked"))
	require.Equal(t, uint64(len(numbers)), r.Stats().Parked)
	ready.Store(true)
	l.awaitEffects(t, "bad", numbers...)
	require.Eventually(t, func() bool { return rowsOf(t, l.pool, "inbox_parked") == 0 }, soon, tick)
	l.count(t, "bad", 13, 14)
	l.awaitEffects(t, "bad", append(numbers, 13, 14)...)
	require.Zero(t, rowsOf(t, l.pool, "inbox_parked"))
	require.Empty(t, l.graves.all())
}

// No more may be parked, so the next of the key waits. It does not keep those from
// their turn that are parked before it.
func TestFollowerThatMayNotBeParkedDoesNotBlockItsHead(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var ready atomic.Bool
	r := l.run(t, l.ordered(parking, func(c *consumer.Config) { c.MaxParked = 2 }), l.postpone(&ready))
	r.SetSurvey(50 * time.Millisecond)
	l.count(t, "bad", 1, 2, 3, 4)
	awaitNotReady(t, r, "2 messages are parked")
	require.Empty(t, l.effects("bad"))
	ready.Store(true)
	l.awaitEffects(t, "bad", 1, 2, 3, 4)
	l.settled(t)
}

// A duplicate may be parked, so its key is marked. Of keys of which nothing comes any
// more the marks do not pile up, and that of a parked key stays.
func TestMarksOfDuplicatesDoNotPileUp(t *testing.T) {
	t.Parallel()
	const keys = 400
	l := setupLedger(t, slowAcks)
	var ready atomic.Bool
	r := l.run(t, l.ordered(parking), l.postpone(&ready))
	l.count(t, "bad", 1)
	l.publishKeys(t, keys, 1)
	l.settled(t)
	_, err := l.js.ResetConsumerToSequence(t.Context(), l.declared.Stream.Name, l.declared.Durable, 1)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.Stats().Duplicates == keys }, soon, tick)
	l.settled(t)
	require.Less(t, r.Marks(), 300)
	l.count(t, "bad", 2)
	l.settled(t)
	require.Empty(t, l.effects("bad"))
	ready.Store(true)
	l.awaitEffects(t, "bad", 1, 2)
}

// The successor knows the parked keys before it takes the first message.
func TestParkedKeyKeepsItsOrderOverATakeOver(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var ready atomic.Bool
	first := l.run(t, l.ordered(parking), l.postpone(&ready))
	l.count(t, "bad", 1, 2, 3)
	l.settled(t)
	require.NoError(t, first.stop())
	l.count(t, "bad", 4)
	l.run(t, l.ordered(parking), l.postpone(&ready))
	l.count(t, "good", 1)
	l.awaitEffects(t, "good", 1)
	l.count(t, "bad", 5)
	l.settled(t)
	require.Empty(t, l.effects("bad"))
	ready.Store(true)
	l.awaitEffects(t, "bad", 1, 2, 3, 4, 5)
}

// A message was parked, and the process died before it was acknowledged. It comes
// again, and its followers wait all the same.
func TestRedeliveryOfAParkedHeadDoesNotLetItsFollowersPass(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var ready atomic.Bool
	first := l.run(t, l.ordered(parking), l.postpone(&ready))
	l.count(t, "bad", 1)
	l.settled(t)
	require.NoError(t, first.stop())
	_, err := l.js.ResetConsumerToSequence(t.Context(), l.declared.Stream.Name, l.declared.Durable, 1)
	require.NoError(t, err)
	l.count(t, "bad", 2, 3)
	l.run(t, l.ordered(parking), l.postpone(&ready))
	l.settled(t)
	require.Empty(t, l.effects("bad"))
	require.Equal(t, 3, rowsOf(t, l.pool, "inbox_parked"))
	ready.Store(true)
	l.awaitEffects(t, "bad", 1, 2, 3)
}

// An instance died with a claim on the head of a key. Its successor does not wait
// for the claim to run out.
func TestTakeOverEndsTheClaimsOfTheDead(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var ready atomic.Bool
	first := l.run(t, l.ordered(parking), l.postpone(&ready))
	l.count(t, "bad", 1, 2)
	l.settled(t)
	require.NoError(t, first.stop())
	_, err := l.pool.Exec(t.Context(), `update messaging.inbox_parked set due_at = clock_timestamp()`)
	require.NoError(t, err)
	claimed, err := l.in.ClaimParked(t.Context(), l.declared.Durable, 10, time.Hour, true)
	require.NoError(t, err)
	require.Len(t, claimed, 1)
	ready.Store(true)
	l.run(t, l.ordered(parking), l.postpone(&ready))
	l.awaitEffects(t, "bad", 1, 2)
}

// A message that is parked behind another has had no start. One that kills its
// process is found out all the same.
func TestParkedFollowerThatKillsIsFoundOut(t *testing.T) {
	t.Parallel()
	f := setupFleet(t, 0)
	killer := number(t, "killer", 1)
	f.send(t, killer)
	e, err := envelope.Decode(killer.Data)
	require.NoError(t, err)
	s, err := f.js.Stream(t.Context(), f.declared.Stream.Name)
	require.NoError(t, err)
	require.NoError(t, f.in.Park(t.Context(), &envelope.Parked{
		Source: "maskin", MessageID: e.ID, Durable: f.declared.Durable, Key: "killer", Stream: f.declared.Stream.Name,
		StreamCreated: s.CachedInfo().Created, Sequence: 1, StoredAt: time.Now(), Subject: killer.Subject,
		Header: envelope.Header(killer.Header), Data: killer.Data,
	}, 0))
	for deaths := 0; rowsOf(t, f.pool, "inbox_parked") > 0; deaths++ {
		require.LessOrEqual(t, deaths, 5, "the message kills on and on")
		pid := f.start(t)
		require.Eventually(t, func() bool {
			return len(f.children[pid]) > 0 || rowsOf(t, f.pool, "inbox_parked") == 0
		}, soon, tick)
		f.kill(t, pid)
	}
}

// An instance that lost the lease a moment ago had parked the head. Its followers
// wait all the same.
func TestMessageThatAnotherInstanceParkedHoldsItsFollowers(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	r := l.run(t, l.ordered(), l.apply(nil))
	require.Eventually(t, func() bool { return r.Stats().Active }, soon, tick)
	head := number(t, "bad", 1)
	e, err := envelope.Decode(head.Data)
	require.NoError(t, err)
	s, err := l.js.Stream(t.Context(), l.declared.Stream.Name)
	require.NoError(t, err)
	require.NoError(t, l.in.Park(t.Context(), &envelope.Parked{
		Source: "maskin", MessageID: e.ID, Durable: l.declared.Durable, Key: "bad", Stream: l.declared.Stream.Name,
		StreamCreated: s.CachedInfo().Created, Sequence: 1, StoredAt: time.Now(), Subject: head.Subject,
		Header: envelope.Header(head.Header), Data: head.Data, Attempts: 1,
	}, time.Hour))
	l.send(t, head)
	l.count(t, "bad", 2, 3)
	l.settled(t)
	require.Empty(t, l.effects("bad"))
	_, err = l.pool.Exec(t.Context(), `update messaging.inbox_parked set due_at = clock_timestamp()`)
	require.NoError(t, err)
	l.awaitEffects(t, "bad", 1, 2, 3)
}

// muteStore parks the first message, and the answer is lost.
type muteStore struct {
	*inbox.Inbox
	parked atomic.Bool
}

func (s *muteStore) Park(ctx context.Context, p *envelope.Parked, delay time.Duration) error {
	if err := s.Inbox.Park(ctx, p, delay); err != nil || s.parked.Swap(true) {
		return err
	}
	return errBroken
}

// The head was parked and nobody was told. Its followers wait all the same.
func TestFollowersWaitForAHeadWhoseParkingHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	var ready atomic.Bool
	store := &muteStore{Inbox: l.in}
	l.run(t, l.ordered(parking, func(c *consumer.Config) { c.Store = store }), l.postpone(&ready))
	l.count(t, "bad", 1, 2, 3)
	l.settled(t)
	require.True(t, store.parked.Load())
	require.Empty(t, l.effects("bad"))
	require.Equal(t, 3, rowsOf(t, l.pool, "inbox_parked"))
	ready.Store(true)
	l.awaitEffects(t, "bad", 1, 2, 3)
}

// The store finds a message parked that failed here a moment ago.
func TestHeadFoundParkedAtItsNextAttemptHoldsItsFollowers(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	head := number(t, "bad", 1)
	e, err := envelope.Decode(head.Data)
	require.NoError(t, err)
	s, err := l.js.Stream(t.Context(), l.declared.Stream.Name)
	require.NoError(t, err)
	row := &envelope.Parked{
		Source: "maskin", MessageID: e.ID, Durable: l.declared.Durable, Key: "bad", Stream: l.declared.Stream.Name,
		StreamCreated: s.CachedInfo().Created, Sequence: 1, StoredAt: time.Now(), Subject: head.Subject,
		Header: envelope.Header(head.Header), Data: head.Data, Attempts: 1,
	}
	l.run(t, l.ordered(), l.apply(func(ctx context.Context, m envelope.Received[numberV1]) error {
		if m.Envelope.ID == e.ID && m.Attempt == 1 {
			return errors.Join(errBroken, l.in.Park(ctx, row, time.Hour))
		}
		return nil
	}))
	l.send(t, head)
	l.count(t, "bad", 2, 3)
	l.settled(t)
	require.Empty(t, l.effects("bad"))
	_, err = l.pool.Exec(t.Context(), `update messaging.inbox_parked set due_at = clock_timestamp()`)
	require.NoError(t, err)
	l.awaitEffects(t, "bad", 1, 2, 3)
}
