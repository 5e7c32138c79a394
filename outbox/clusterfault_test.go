package outbox_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// atStep makes a relay stand still after the given step of a take-over, as in
// "told 3": the third time that rows were told apart.
func atStep(r *outbox.Relay, batch int, step string, still func()) {
	name, count := step, 1
	if before, after, ok := strings.Cut(step, " "); ok {
		name = before
		_, _ = fmt.Sscan(after, &count)
	}
	r.OnForeign(batch, func(done string) {
		if done == name {
			if count--; count == 0 {
				still()
			}
		}
	})
}

// standStill does that in a relay process.
func standStill(r *outbox.Relay) {
	if step := os.Getenv(childStepEnv); step != "" {
		atStep(r, 10, step, func() {
			fmt.Println(stoppedLine)
			select {}
		})
	}
}

const childStepEnv = "OUTBOX_TEST_STEP" // of a take-over, where the child stands still

// A relay is killed after each step of a take-over; the next one goes on.
//
// A row of docs/DELIVERY.md.
func TestTakeOverIsKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	b, url := setupTCP(t)
	shortenDuplicateWindow(t, b)
	old, young := b.twoClusters(t, false)
	counter := map[string]int{}
	old.publishAll(t, counter, 200)
	old.enqueueCounted(t, counter, 45)
	old.dump(t)(young, true)
	for i, step := range []string{"begun", "told", "told 3", "taken", "rewritten", "rewritten 3"} {
		expireLease(t, young)
		young.enqueueCounted(t, counter, 3)
		c := startChild(t, 1000, url, connString(young.pool), childStepEnv+"="+step)
		c.await(t, stoppedLine)
		c.kill()
		require.True(t, young.status(t).Foreign, "kill %d", i)
	}
	expireLease(t, young)
	young.relay(t, outbox.RelayConfig{})
	young.requireOwn(t)
	young.requireDrained(t)
	young.requireOnce(t, 200+45+6*3)
	requireCounted(t, published(t, young.js, events), counter)
	require.Zero(t, young.status(t).LostTimeline)
}

// The sequence did not come along, and the relay dies between setting it and
// remembering that. Nothing in the sequence tells the next one which numbers were
// given out here before; none of those rows may count as published.
func TestRelayKilledAfterItSetTheSequencePublishesAll(t *testing.T) {
	t.Parallel()
	b, url := setupTCP(t)
	shortenDuplicateWindow(t, b)
	old, young := b.twoClusters(t, true)
	counter := map[string]int{}
	old.publishAll(t, counter, 40)
	old.exec(t, "delete from messaging.outbox_events where seq <= 20")
	old.enqueueCounted(t, counter, 5)
	old.dump(t)(young, false)
	young.exec(t, "update messaging.outbox_state set base = '900000000:900000000:'") // so that the foreign cursor sees what is written here
	young.enqueue(t, "early", numbers(1, 12)...)
	for _, step := range []string{"numbered", "begun"} {
		expireLease(t, young)
		c := startChild(t, 1000, url, connString(young.pool), childStepEnv+"="+step)
		c.await(t, stoppedLine)
		c.kill()
	}
	expireLease(t, young)
	young.awaitForgotten(t)
	young.relay(t, outbox.RelayConfig{})
	young.requireOwn(t)
	young.requireDrained(t)
	young.enqueue(t, "early", 13)
	young.requireDrained(t)
	counter["early"] = 13
	young.requireFirsts(t, counter)
	young.requireOnce(t, 40+5+13)
}

// The database is dumped once more in the middle of a take-over, and restored in
// a third cluster.
func TestTakeOverOfATakeOver(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"begun", "told 2", "taken", "rewritten 2"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			first := setup(t)
			shortenDuplicateWindow(t, first)
			second := first.anotherCluster(t)
			first.ahead(t, second)
			counter := map[string]int{}
			first.publishAll(t, counter, 60)
			first.enqueueCounted(t, counter, 40)
			first.dump(t)(second, true)
			expireLease(t, second)
			second.enqueueCounted(t, counter, 5)
			second.interrupt(t, step)

			third := first // the cluster that it came from
			third.enqueue(t, "forgotten", 1)
			second.dump(t)(third, true)
			expireLease(t, third)
			third.enqueueCounted(t, counter, 5)
			third.awaitForgotten(t)
			stop := third.relay(t, outbox.RelayConfig{})
			third.requireAllThere(t, counter)
			third.requireOwn(t)
			third.requireDrained(t)
			stop()
			third.requireFirsts(t, counter)
			third.requireOnce(t, 60+40+5+5)
		})
	}
}

// interrupt takes the lease from a relay after a step of its take-over.
func (b bundle) interrupt(t *testing.T, step string) {
	t.Helper()
	r := b.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Second})
	caught := make(chan struct{})
	wait, open := barrier(t)
	atStep(r, 10, step, func() {
		close(caught)
		wait()
	})
	stop := run(t, r)
	<-caught
	b.exec(t, "update messaging.outbox_lease set holder = 'other', term = term + 1, expires_at = clock_timestamp() + interval '1 hour'")
	open()
	require.Eventually(t, func() bool { return !r.Leading() }, 20*time.Second, time.Millisecond)
	stop()
}

// What operators ask for while ids are being rewritten waits for that: neither a
// rewind, of a key or a stream, nor a release may miss rows that still have
// foreign ids.
func TestOperatorsWaitForTheEndOfATakeOver(t *testing.T) {
	t.Parallel()
	old := setup(t)
	shortenDuplicateWindow(t, old)
	young := old.anotherCluster(t)
	old.ahead(t, young)
	old.limit(t, 4<<10)
	stop := old.relay(t, outbox.RelayConfig{})
	old.enqueuePadded(t, "bad", 1, tooLarge)
	old.enqueue(t, "bad", 2, 3)
	old.enqueue(t, "good", numbers(1, 48)...)
	old.requireDrained(t)
	old.enqueue(t, "good", 49)
	old.requireDrained(t)
	old.enqueue(t, "good", 50) // after two moves the floor is above most
	old.requireDrained(t)
	old.requireParked(t, "bad")
	stop()
	old.dump(t)(young, true)
	expireLease(t, young)
	young.limit(t, -1)
	young.releaseKey(t, "bad")
	young.awaitForgotten(t)
	r := young.newRelay(t, outbox.RelayConfig{})
	wait, open := barrier(t)
	atStep(r, 1, "rewritten", wait)
	stop = run(t, r)
	young.enqueue(t, "good", 51) // new rows do not wait
	young.requireStored(t, events, 51)
	young.requireDrained(t)
	require.True(t, young.status(t).Foreign)
	_, err := outbox.RequestRewind(t.Context(), young.pool, "", outbox.RewindRequest{Stream: events, Key: "good", All: true, By: "operator:ola", Reason: "test"})
	require.NoError(t, err)
	open()
	young.requireNothingParked(t)
	young.requireOwn(t)
	young.requireStored(t, events, 54+51)
	young.awaitForgotten(t)
	young.exec(t, "insert into messaging.outbox_rewinds (stream, requested_by, reason) values ($1, 'operator:ola', 'test')", events)
	young.requireStored(t, events, 54+51+54)
	stop()
	firsts := young.firsts(t)
	require.Equal(t, numbers(1, 3), firsts["bad"])
	require.Equal(t, numbers(1, 51), firsts["good"])
}

// While a key waits for the end of a take-over to be published again, the cursor
// passes over what comes of it: no anchor from then is a place to go back to.
func TestAnchorsFromWhileAKeyWaitsForATakeOverAreNotUsed(t *testing.T) {
	t.Parallel()
	old := setup(t)
	shortenDuplicateWindow(t, old)
	young := old.anotherCluster(t)
	old.ahead(t, young)
	counter := map[string]int{}
	old.publishAll(t, counter, 20)
	old.dump(t)(young, true)
	expireLease(t, young)
	r := young.newRelay(t, outbox.RelayConfig{})
	r.AnchorEvery(0)
	wait, open := barrier(t)
	atStep(r, 1, "rewritten", wait)
	run(t, r)
	key, own := keyName(1), counter[keyName(1)]
	young.awaitForgotten(t)
	require.Eventually(t, func() bool { return young.status(t).Foreign }, 20*time.Second, time.Millisecond)
	_, err := outbox.RequestRewind(t.Context(), young.pool, "", outbox.RewindRequest{Stream: events, Key: key, All: true, By: ola, Reason: why})
	require.NoError(t, err)
	young.enqueue(t, key, own+1)
	for i := range 3 {
		young.enqueue(t, "other", i+1)
		young.requireStored(t, events, uint64(20+i+1))
		young.requireDrained(t)
	}
	anchors, err := outbox.ListAnchors(t.Context(), young.pool, "", events)
	require.NoError(t, err)
	require.NotEmpty(t, anchors)
	open()
	young.requireStored(t, events, uint64(20+3+own+1))
	young.requireNothingParked(t)
	anchors, err = outbox.ListAnchors(t.Context(), young.pool, "", events)
	require.NoError(t, err)
	require.Empty(t, anchors)
}

// The first base is a snapshot like any other: the database crashes after it is
// taken, and the term that took it may not go on.
//
// A row of docs/DELIVERY.md.
func TestDatabaseKilledInATakeOverStillPublishes(t *testing.T) {
	t.Parallel()
	old := setup(t)
	server, young := crashable(t)
	young.js = old.js
	counter := map[string]int{}
	old.publishAll(t, counter, 20)
	old.enqueueCounted(t, counter, 5)
	old.dump(t)(young, true)
	young.exec(t, "update messaging.outbox_state set system_identifier = 42") // both were made by one initdb
	expireLease(t, young)
	r := young.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Minute})
	caught := make(chan struct{})
	wait, open := barrier(t)
	still := sync.OnceFunc(func() {
		close(caught)
		wait()
	})
	r.OnForeign(1000, func(step string) {
		if step == "begun" {
			still()
		}
	})
	run(t, r)
	young.rollBackMany(t, 300)
	<-caught
	crash(t, server, young)
	young.enqueue(t, "after", 1)
	open()
	young.requireStored(t, events, 26)
	young.requireDrained(t)
	counter["after"] = 1
	requireCounted(t, published(t, young.js, events), counter)
}

// A stream that is made anew while ids are being rewritten gets all rows: its
// cursor goes back behind those that still have foreign ids, and waits for them.
func TestStreamAcceptedInATakeOverGetsAllRows(t *testing.T) {
	t.Parallel()
	old, young := setup(t).twoClusters(t, false)
	counter := map[string]int{}
	old.publishAll(t, counter, 50)
	old.dump(t)(young, true)
	expireLease(t, young)
	r := young.newRelay(t, outbox.RelayConfig{PageRows: 20, ProbeInterval: 20 * time.Millisecond})
	wait, open := barrier(t)
	atStep(r, 5, "rewritten 2", wait)
	stop := run(t, r)
	young.enqueueCounted(t, counter, 3)
	young.requireStored(t, events, 53)
	require.NoError(t, young.js.DeleteStream(t.Context(), events))
	createStreams(t, young.js)
	requireRecreated(t, young, r)
	require.NoError(t, outbox.AcceptStream(t.Context(), young.pool, "", events, "operator:ola", "the disk was replaced"))
	requireReady(t, r)
	young.enqueueCounted(t, counter, 3)
	young.awaitForgotten(t) // some polls
	require.True(t, young.status(t).Foreign)
	open()
	young.requireStored(t, events, 56)
	young.requireDrained(t)
	stop()
	requireCounted(t, published(t, young.js, events), counter)
}
