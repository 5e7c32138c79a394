package outbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
)

const events = "DV_MASKIN_EVT"

// frail is a broker that can be put back to an earlier moment.
type frail struct {
	bundle
	server *natsserver.Server
	store  string
	backup string
}

func setupFrail(t *testing.T) *frail {
	t.Helper()
	f := &frail{store: t.TempDir(), backup: t.TempDir()}
	var err error
	f.server, err = natsserver.Start(t.Context(), f.store, natsserver.Options{TCP: true})
	require.NoError(t, err)
	t.Cleanup(f.server.Stop)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{
		URL: f.server.URL(), Options: []nats.Option{nats.ReconnectWait(10 * time.Millisecond), nats.ReconnectJitter(0, 0)},
	})
	require.NoError(t, err)
	t.Cleanup(conn.NATS().Close)
	f.bundle = bundle{pool: dvtest.Postgres(t), js: conn.JetStream(), out: newOutbox(t)}
	createStreams(t, f.js)
	return f
}

// save keeps what the broker has stored by now. It is down for that moment, so
// that the copy is one that a machine could really come back with.
func (f *frail) save(t *testing.T) {
	t.Helper()
	f.server.Stop()
	require.NoError(t, os.CopyFS(f.backup, os.DirFS(f.store)))
	require.NoError(t, f.server.Restart(t.Context()))
	f.awaitConnection(t)
}

// lose puts the broker back to the saved moment. While it is down, meanwhile
// runs.
func (f *frail) lose(t *testing.T, meanwhile func()) {
	t.Helper()
	f.server.Stop()
	require.NoError(t, os.RemoveAll(filepath.Join(f.store, "jetstream")))
	require.NoError(t, os.CopyFS(f.store, os.DirFS(f.backup)))
	meanwhile()
	require.NoError(t, f.server.Restart(t.Context()))
	f.awaitConnection(t)
}

func (f *frail) awaitConnection(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := f.js.AccountInfo(t.Context())
		return err == nil
	}, 20*time.Second, 5*time.Millisecond)
}

// status is that of the event stream.
func (b bundle) status(t testing.TB) outbox.StreamStatus {
	t.Helper()
	st, err := outbox.ReadStatus(t.Context(), b.pool, "")
	require.NoError(t, err)
	if len(st.Streams) == 0 {
		return outbox.StreamStatus{Unpublished: -1} // no relay ran yet
	}
	require.Equal(t, events, st.Streams[0].Stream)
	return st.Streams[0]
}

// requireDrained waits until the cursor has passed every row.
func (b bundle) requireDrained(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { return b.status(t).Unpublished == 0 }, 30*time.Second, 2*time.Millisecond)
}

// requireAllThere waits until the stream holds every event, and checks that the
// first occurrences of each key are in order. Repeats are the inbox's affair.
func (b bundle) requireAllThere(t *testing.T, totals map[string]int) {
	t.Helper()
	var next map[string]int
	require.Eventually(t, func() bool {
		next = map[string]int{}
		for i, c := range published(t, b.js, events) {
			require.LessOrEqual(t, c.N, next[c.Key]+1, "position %d of the stream: key %s: something before is missing", i, c.Key)
			next[c.Key] = max(next[c.Key], c.N)
		}
		for key, n := range totals {
			if next[key] != n {
				return false
			}
		}
		return true
	}, 20*time.Second, 20*time.Millisecond, "events are missing in the stream")
}

// enqueueEach commits n events on three keys, a page each.
func (b bundle) enqueueEach(t *testing.T, counter map[string]int, n int) {
	t.Helper()
	for i := range n {
		key := keyName(i % 3)
		counter[key]++
		b.enqueue(t, key, counter[key])
		b.requireDrained(t)
	}
}

// The broker comes back with an earlier copy of its store: what it had
// acknowledged after that is gone, and sequences are given out again. The relay
// notices before it publishes anything, goes back, and no operator is needed.
// The copy is taken between two anchors, and the duplicate window is outlived or
// not; a page of one row or large walks; the relay stays up or is restarted.
//
// A row of docs/DELIVERY.md.
func TestStreamRolledBackIsHealed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		restart   bool
		shortIDs  bool          // the window forgets before the rows are sent again
		anchors   time.Duration // between copies of the cursor
		pageRows  int
		inOneBulk bool
	}{
		{name: "relay up, an anchor per page"},
		{name: "relay up, between two anchors", anchors: time.Hour},
		{name: "relay up, between two anchors, window outlived", anchors: time.Hour, shortIDs: true},
		{name: "relay up, walks", pageRows: 7, inOneBulk: true, shortIDs: true},
		{name: "relay up, walks between two anchors", pageRows: 7, inOneBulk: true, anchors: time.Hour},
		{name: "relay restarted, an anchor per page", restart: true, shortIDs: true},
		{name: "relay restarted, between two anchors", restart: true, anchors: time.Hour},
		{name: "relay restarted, walks", restart: true, pageRows: 7, inOneBulk: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := setupFrail(t)
			effects := startLedger(t, f.bundle)
			if c.shortIDs {
				shortenDuplicateWindow(t, f.bundle)
			}
			start := func() func() {
				r := f.newRelay(t, outbox.RelayConfig{PageRows: c.pageRows, LeaseTTL: time.Second})
				r.AnchorEvery(c.anchors)
				return run(t, r)
			}
			counter := map[string]int{}
			more := func(n int) {
				if c.inOneBulk {
					f.enqueueCounted(t, counter, n)
				} else {
					f.enqueueEach(t, counter, n)
				}
			}
			stop := start()
			more(30)
			f.requireDrained(t)
			f.save(t)
			more(20)
			f.requireDrained(t)
			f.requireAllThere(t, counter)
			if c.restart {
				stop()
			}
			f.lose(t, func() { f.enqueueCounted(t, counter, 10) })
			if c.restart {
				start()
			}
			f.requireAllThere(t, counter)
			effects.require(t, counter)
			f.requireDrained(t)
			require.EqualValues(t, 1, f.status(t).Rewinds)
			f.requireOnce(t, 60) // survivors behind the anchor are found, whatever the window forgot
		})
	}
}

// Of a page that is under way some was acknowledged, which no cursor tells yet,
// and then lost: the relay compares what it remembers of the page.
func TestStreamRolledBackInTheMiddleOfAPageIsHealed(t *testing.T) {
	t.Parallel()
	f := setupFrail(t)
	f.save(t) // empty
	s, err := f.js.Stream(t.Context(), events)
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = 20 // the page of 50 gets no further
	_, err = f.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	counter := map[string]int{}
	f.enqueueCounted(t, counter, 50)
	f.relay(t, outbox.RelayConfig{})
	f.requireStored(t, events, 20)
	require.EqualValues(t, 50, f.status(t).Unpublished)
	f.lose(t, func() {})
	f.requireAllThere(t, counter)
}

// No reconnect, no look is due: only the acknowledgement itself tells that the
// stream gives sequences out again.
func TestSequenceGivenOutAgainIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{ProbeInterval: 10 * time.Minute})
	run(t, r)
	counter := map[string]int{}
	b.enqueueEach(t, counter, 5)
	require.NoError(t, b.js.DeleteStream(t.Context(), events))
	createStreams(t, b.js)
	b.enqueueCounted(t, counter, 1)
	requireRecreated(t, b, r)
	require.EqualValues(t, 1, b.status(t).Unpublished, "the cursor moved in doubt")
}

// Older anchors are looked at too: what lies before the newest may be missing.
func TestMessageMissingAtAnOlderAnchorIsPublishedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	r := b.newRelay(t, outbox.RelayConfig{})
	r.AnchorEvery(0)
	stop := run(t, r)
	counter := map[string]int{}
	b.enqueueEach(t, counter, 10)
	stop()
	s, err := b.js.Stream(t.Context(), events)
	require.NoError(t, err)
	require.NoError(t, s.DeleteMsg(t.Context(), 9))
	last, err := s.GetMsg(t.Context(), 10)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return time.Since(last.Time) > 300*time.Millisecond }, 20*time.Second, time.Millisecond) // the window
	b.relay(t, outbox.RelayConfig{})
	b.requireAllThere(t, counter)
	require.EqualValues(t, 1, b.status(t).Rewinds)
}

// A stream shared with other producers was filled up by them meanwhile: its last
// sequence is high again, and only the message at the anchor tells.
//
// A row of docs/DELIVERY.md.
func TestRollbackIsNoticedThoughOthersFilledTheStreamUp(t *testing.T) {
	t.Parallel()
	f := setupFrail(t)
	r := f.newRelay(t, outbox.RelayConfig{})
	stop := run(t, r)
	counter := map[string]int{}
	f.enqueueEach(t, counter, 10)
	f.save(t)
	f.enqueueEach(t, counter, 10)
	stop()
	foreign := published(t, f.js, events)
	f.lose(t, func() {})
	for i := range 2 * len(foreign) {
		s, err := f.js.Stream(t.Context(), events)
		require.NoError(t, err)
		m, err := s.GetMsg(t.Context(), 1)
		require.NoError(t, err)
		m.Header.Set(envelope.HeaderMsgID, fmt.Sprintf("other-%d", i))
		_, err = f.js.PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		require.NoError(t, err)
	}
	f.relay(t, outbox.RelayConfig{})
	f.requireAllThere(t, counter)
	require.EqualValues(t, 1, f.status(t).Rewinds)
}

// What aged out or was purged is not lost: a relay that took it for loss would
// publish the whole outbox again.
func TestPurgedOrAgedMessagesAreNotLoss(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		for name, remove := range map[string]func(*testing.T, bundle){
			"purged": func(t *testing.T, b bundle) {
				s, err := b.js.Stream(t.Context(), events)
				require.NoError(t, err)
				require.NoError(t, s.Purge(t.Context()))
			},
			"aged": func(t *testing.T, b bundle) {
				s, err := b.js.Stream(t.Context(), events)
				require.NoError(t, err)
				cfg := s.CachedInfo().Config
				cfg.Duplicates, cfg.MaxAge = 100*time.Millisecond, 100*time.Millisecond
				_, err = b.js.UpdateStream(t.Context(), cfg)
				require.NoError(t, err)
				b.requireStored(t, events, 0)
				cfg.MaxAge = time.Hour
				_, err = b.js.UpdateStream(t.Context(), cfg)
				require.NoError(t, err)
			},
		} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				looks := outbox.RelayConfig{ProbeInterval: 10 * time.Millisecond}
				r := b.newRelay(t, looks)
				r.AnchorEvery(0)
				stop := run(t, r)
				b.enqueueEach(t, map[string]int{}, 10)
				remove(t, b)
				if restart {
					stop()
					r = b.newRelay(t, looks)
					stop = run(t, r)
				}
				requireLooks(t, b, r, 3)
				b.enqueue(t, "later", 1)
				b.requireDrained(t)
				require.EqualValues(t, 1, storedMessages(t, b.js), "old messages were published again")
				require.Zero(t, b.status(t).Rewinds)
				stop()
			})
		}
	}
}

// requireLooks returns after the relay has looked at its streams n times.
func requireLooks(t *testing.T, b bundle, r *outbox.Relay, n int) {
	t.Helper()
	looks := make(chan *nats.Msg, 1000)
	sub, err := b.js.Conn().ChanSubscribe("$JS.API.STREAM.INFO."+events, looks)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Unsubscribe()) }()
	for range n {
		select {
		case <-looks:
		case <-time.After(20 * time.Second):
			require.Fail(t, "the relay does not look at its stream")
		}
	}
	requireReady(t, r)
}

// An idle relay that looks a hundred times a second goes back never.
func TestIdleRelayWithoutLossNeverRewinds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{ProbeInterval: 10 * time.Millisecond})
	r.AnchorEvery(0)
	run(t, r)
	counter := map[string]int{}
	b.enqueueEach(t, counter, 30)
	var before, after string
	row := "select string_agg(ctid::text || base::text || xmin::text, ' ' order by stream) from messaging.outbox_state"
	require.NoError(t, b.pool.QueryRow(t.Context(), row).Scan(&before))
	requireLooks(t, b, r, 20)
	require.NoError(t, b.pool.QueryRow(t.Context(), row).Scan(&after))
	require.Equal(t, before, after)
	require.Zero(t, b.status(t).Rewinds)
	require.EqualValues(t, 30, storedMessages(t, b.js))
}

// A deleted and newly made stream is not filled without being asked: who made it
// may have meant it to be empty, and may have meant another.
//
// A row of docs/DELIVERY.md.
func TestRecreatedStreamWaitsForTheOperator(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			looks := outbox.RelayConfig{ProbeInterval: 50 * time.Millisecond}
			r := b.newRelay(t, looks)
			stop := run(t, r)
			counter := map[string]int{}
			b.enqueueEach(t, counter, 20)
			if restart {
				stop()
			}
			require.ErrorIs(t, outbox.AcceptStream(t.Context(), b.pool, "", events, "operator:ola", "too early"), outbox.ErrNothingToAccept)
			require.NoError(t, b.js.DeleteStream(t.Context(), events))
			createStreams(t, b.js)
			if restart {
				r = b.newRelay(t, looks)
				run(t, r)
			}
			requireRecreated(t, b, r)
			b.enqueueCounted(t, counter, 10)
			requireRecreated(t, b, r)
			require.Zero(t, storedMessages(t, b.js), "published to a stream that nobody accepted")

			require.NoError(t, outbox.AcceptStream(t.Context(), b.pool, "", events, "operator:ola", "the disk was replaced"))
			b.requireStored(t, events, 30)
			requireCounted(t, published(t, b.js, events), counter)
			require.Eventually(t, func() bool { return r.Ready() == nil }, 20*time.Second, 5*time.Millisecond)
			require.False(t, b.status(t).Recreated)
			require.ErrorIs(t, outbox.AcceptStream(t.Context(), b.pool, "", events, "operator:ola", "again"), outbox.ErrNothingToAccept)
			var by, reason string
			require.NoError(t, b.pool.QueryRow(t.Context(), "select accepted_by, reason from messaging.outbox_accepted").Scan(&by, &reason))
			require.Equal(t, []string{"operator:ola", "the disk was replaced"}, []string{by, reason})
		})
	}
}

// Neither a broker that does not answer nor a stream that waits for its operator
// makes a stop wait.
func TestStopDoesNotWaitForAStreamInDoubt(t *testing.T) {
	t.Parallel()
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		asked := make(chan *nats.Msg, 100)
		sub, err := b.js.Conn().ChanSubscribe("$JS.dc9.API.STREAM.INFO."+events, asked)
		require.NoError(t, err)
		defer func() { require.NoError(t, sub.Unsubscribe()) }()
		stop := b.relay(t, outbox.RelayConfig{Domain: "dc9", AckTimeout: time.Minute, DrainTimeout: time.Minute})
		b.enqueue(t, "a", 1)
		<-asked
		began := time.Now()
		stop()
		require.Less(t, time.Since(began), 10*time.Second)
	})
	t.Run("recreated", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		r := b.newRelay(t, outbox.RelayConfig{ProbeInterval: 50 * time.Millisecond, DrainTimeout: time.Minute})
		stop := run(t, r)
		b.enqueueEach(t, map[string]int{}, 3)
		require.NoError(t, b.js.DeleteStream(t.Context(), events))
		createStreams(t, b.js)
		b.enqueue(t, "a", 1)
		requireRecreated(t, b, r)
		began := time.Now()
		stop()
		require.Less(t, time.Since(began), 10*time.Second)
	})
}
