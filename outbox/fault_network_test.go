package outbox_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// The answers to a whole window of messages are lost: with the connection that
// they were to come on, or on a connection that goes on. All messages are sent
// again, and the stream drops each of them.
//
// A row of docs/DELIVERY.md.
func TestAnswersLostInBulkAreHarmless(t *testing.T) {
	t.Parallel()
	const window = 1000
	for name, c := range map[string]struct {
		patience time.Duration
		cut      bool
	}{
		"the connection is cut": {patience: time.Minute, cut: true}, // longer than the test waits
		"the connection stays":  {patience: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, url := setupTCP(t)
			w := newWire(t, url)
			far := w.connect(t, b)
			r := far.newRelay(t, outbox.RelayConfig{AckTimeout: c.patience, MaxPending: window})
			run(t, r)
			counter := map[string]int{}
			b.enqueueOnKeys(t, counter, 1)
			b.requireDrained(t) // the relay has looked at its stream and has no doubt

			if c.cut {
				w.answers.close()
			} else {
				w.loseAnswers(isPubAck)
			}
			b.enqueueOnKeys(t, counter, window)
			b.requireStored(t, events, 1+window) // all in flight, none answered
			require.EqualValues(t, window, b.status(t).Unpublished)
			if c.cut {
				w.cut()
				w.answers.open()
			} else {
				require.Eventually(t, func() bool { return r.Ready() != nil }, 20*time.Second, time.Millisecond)
				w.loseAnswers(func([]byte) bool { return false })
			}
			b.requireDrained(t)
			b.enqueueOnKeys(t, counter, window)
			b.requireDrained(t)
			b.requireExact(t, counter)
			require.Zero(t, b.status(t).Rewinds, "a fault of the network was taken for loss")
			requireReady(t, r)
		})
	}
}

// The relay asks its stream whether it holds what it acknowledged, and the
// connection dies before the answer: it must ask again on the next one. It waited
// for an answer that could not come any more, so that a connection which lives
// shortly let nothing through.
func TestQuestionIsAskedAgainOnTheNextConnection(t *testing.T) {
	t.Parallel()
	b, url := setupTCP(t)
	w := newWire(t, url)
	w.connect(t, b).relay(t, outbox.RelayConfig{AckTimeout: time.Minute}) // longer than the test waits
	counter := map[string]int{}
	b.enqueueOnKeys(t, counter, 1)
	b.requireDrained(t)

	asked := make(chan struct{}, 1000)
	w.loseAnswers(func(answer []byte) bool {
		asks := bytes.Contains(answer, []byte("stream_info_response"))
		if asks {
			asked <- struct{}{}
		}
		return asks
	})
	w.cut() // a reason to ask
	<-asked
	w.loseAnswers(func([]byte) bool { return false })
	w.cut()
	b.enqueueOnKeys(t, counter, 1)
	b.requireDrained(t)
	b.requireExact(t, counter)
}

// Every twentieth answer is lost, to messages and to questions alike, on a
// connection that is never cut. Nothing waits for ever, and nothing is out of
// order.
func TestSingleAnswersLostAreHarmless(t *testing.T) {
	t.Parallel()
	b, url := setupTCP(t)
	w := newWire(t, url)
	far := w.connect(t, b)
	var answers atomic.Int64
	w.loseAnswers(func([]byte) bool { return answers.Add(1)%20 == 0 })
	far.relay(t, outbox.RelayConfig{AckTimeout: 500 * time.Millisecond, PageRows: 70})
	counter := map[string]int{}
	for range 7 {
		b.enqueueOnKeys(t, counter, 30)
	}
	b.requireDrained(t)
	b.requireExact(t, counter)
	require.Greater(t, w.sent.Load(), int64(7*30), "nothing was sent again: the test proves nothing")
}

// Connections do not live longer than 200 ms, for seconds, while writers commit.
// To the broker: what is in flight is in doubt each time. To the database: a
// cursor's move, or the lease's renewal.
//
// A row of docs/DELIVERY.md.
func TestStormOfDisconnectsLosesDoublesAndReordersNothing(t *testing.T) {
	t.Parallel()
	t.Run("broker", func(t *testing.T) {
		t.Parallel()
		b, url := setupTCP(t)
		w := newWire(t, url)
		rideStorm(t, w, b, w.connect(t, b), 5*time.Second, 125)
	})
	t.Run("database", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		w := newDatabaseWire(t, b.pool)
		pool, err := pgxpool.New(t.Context(), w.connString(b.pool))
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		rideStorm(t, w, b, bundle{pool: pool, js: b.js, out: b.out}, 3*time.Second, 75)
	})
}

// rideStorm runs a relay over the wire while it is cut and writers, who are not
// behind it, commit.
func rideStorm(t *testing.T, w *wire, near, far bundle, last time.Duration, rounds int) {
	t.Helper()
	const keys, each = 10, 4 // of 100 keys in turn
	r := far.newRelay(t, outbox.RelayConfig{PageRows: 700})
	run(t, r)
	require.Eventually(t, r.Leading, 20*time.Second, time.Millisecond)
	storm, calm := context.WithTimeout(t.Context(), last)
	defer calm()
	cuts := make(chan int, 1)
	go func() {
		rnd := rand.New(rand.NewPCG(5, 6))
		cuts <- w.storm(storm, func() time.Duration { return time.Duration(50+rnd.IntN(150)) * time.Millisecond })
	}()
	counter := map[string]int{}
	pace := time.NewTicker(32 * time.Millisecond) // to four fifths of the storm
	defer pace.Stop()
	for round := range rounds {
		require.NoError(t, near.commitRuns(t.Context(), counter, round%10*keys, keys, each))
		<-pace.C
	}
	n := <-cuts
	require.Greater(t, n, 10)
	near.requireDrained(t)
	near.requireExact(t, counter)
	require.Zero(t, near.status(t).Rewinds, "a fault of the network was taken for loss")
	requireReady(t, r)
	t.Logf("%d cuts, %d connections, %d requests of interest, %d messages", n, w.accepted.Load(), w.sent.Load(), keys*each*rounds)
}

// The walk of a backlog over a restart has a test of its own; here small deltas
// are in flight, stored and not answered, each time the broker goes down.
func TestBrokerRestartedWithADeltaInFlightLosesAndReordersNothing(t *testing.T) {
	t.Parallel()
	const keys = 50
	f := setupFrail(t)
	w := newWire(t, f.server.URL())
	w.connect(t, f.bundle).relay(t, outbox.RelayConfig{AckTimeout: time.Minute})
	counter := map[string]int{}
	f.enqueueOnKeys(t, counter, keys)
	f.requireDrained(t)
	for restarts := range uint64(3) {
		w.answers.close()
		f.enqueueOnKeys(t, counter, keys)
		f.requireStored(t, events, keys*(2*restarts+2))
		require.NoError(t, f.server.Restart(t.Context()))
		w.cut() // with the answers that were under way
		w.answers.open()
		f.awaitConnection(t)
		f.enqueueOnKeys(t, counter, keys) // behind what is sent again
		f.requireDrained(t)
	}
	f.requireExact(t, counter)
	require.Zero(t, f.status(t).Rewinds, "a restart was taken for loss")
}
