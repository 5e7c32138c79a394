package outbox_test

import (
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

// abandon runs a relay until the given page is stored, and takes the lease away
// before the cursor moves: nobody ever records that page. One before is
// recorded by then.
func (b bundle) abandon(t *testing.T, cfg outbox.RelayConfig, page int) {
	t.Helper()
	cfg.LeaseTTL = time.Second
	r := b.newRelay(t, cfg)
	r.AnchorEvery(0)
	var pages atomic.Int64
	caught, resume := make(chan struct{}), make(chan struct{})
	r.OnPublished(func(string, int) {
		if pages.Add(1) == int64(page) {
			close(caught)
			<-resume
		}
	})
	stop := run(t, r)
	<-caught
	if page > 1 {
		require.Eventually(t, func() bool {
			var position int
			require.NoError(t, b.pool.QueryRow(t.Context(), "select coalesce(position, 0) from messaging.outbox_state where stream = $1", events).Scan(&position))
			return position > 0
		}, 20*time.Second, time.Millisecond)
	}
	b.exec(t, "update messaging.outbox_lease set holder = 'other', term = term + 1, expires_at = clock_timestamp() + interval '1 hour'")
	close(resume)
	require.Eventually(t, func() bool { return !r.Leading() }, 20*time.Second, time.Millisecond)
	stop()
	expireLease(t, b)
}

// stranger puts n messages of another service into the event stream.
func (b bundle) stranger(t *testing.T, n int) {
	t.Helper()
	for range n {
		_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: "dv.maskin.evt.server.counted", Header: nats.Header{envelope.HeaderSource: {"nett"}}, Data: []byte("{}")})
		require.NoError(t, err)
	}
}

// ids returns how often each of our ids lies in the event stream.
func (b bundle) ids(t testing.TB) map[string]int {
	t.Helper()
	s, err := b.js.Stream(t.Context(), events)
	require.NoError(t, err)
	c, err := s.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{HeadersOnly: true})
	require.NoError(t, err)
	ids := map[string]int{}
	for left := int(s.CachedInfo().State.Msgs); left > 0; {
		batch, err := c.Fetch(min(left, 500), jetstream.FetchMaxWait(5*time.Second))
		require.NoError(t, err)
		for m := range batch.Messages() {
			if left--; m.Headers().Get(envelope.HeaderSource) == "maskin" {
				ids[m.Headers().Get(envelope.HeaderMsgID)]++
			}
		}
		require.NoError(t, batch.Error())
	}
	return ids
}

// requireOnce checks that the stream holds n messages of ours, each once.
func (b bundle) requireOnce(t testing.TB, n int) {
	t.Helper()
	ids := b.ids(t)
	require.Len(t, ids, n)
	for id, times := range ids {
		require.Equal(t, 1, times, "%s is stored more than once", id)
	}
}

// A relay ends between the acknowledgements and the cursor's move, and the next
// one leads only after the stream has forgotten the ids: without a look at the
// stream itself, all of them would be stored twice.
func TestWhatAnEarlierTermStoredIsNotStoredAgainAfterTheWindow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pageRows, page int
		strangers      int
	}{
		"a delta":              {pageRows: 100, page: 1},
		"a delta, not alone":   {pageRows: 100, page: 1, strangers: 700},
		"a walk's first page":  {pageRows: 10, page: 1},
		"a walk's fourth page": {pageRows: 10, page: 4, strangers: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			shortenDuplicateWindow(t, b)
			b.stranger(t, c.strangers)
			counter := map[string]int{}
			b.enqueueCounted(t, counter, 50)
			b.abandon(t, outbox.RelayConfig{PageRows: c.pageRows}, c.page)
			require.Positive(t, unpublished(t, b))
			b.stranger(t, c.strangers)
			b.awaitForgotten(t)
			b.relay(t, outbox.RelayConfig{PageRows: c.pageRows})
			b.requireDrained(t)
			b.requireOnce(t, 50)
			b.enqueueCounted(t, counter, 5)
			b.requireDrained(t)
			b.requireOnce(t, 55)
			require.Zero(t, b.status(t).LostTimeline)
		})
	}
}

// Pages overlap: a row of the second page may be stored long before the last of
// the first, and the cursor moves past the first alone. So the stream is read
// from before the newest message that the cursor tells of.
func TestWhatIsStoredBelowTheNewestMessageIsFoundToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		var drafts []envelope.Draft
		for n := range 300 { // one after the other
			drafts = append(drafts, serverCounted.New("hot", counted{Key: "hot", N: n + 1}))
		}
		for n := range 300 { // side by side
			drafts = append(drafts, serverCounted.New(keyName(n), counted{Key: keyName(n), N: 1}))
		}
		return b.out.Enqueue(origin(t.Context()), tx, drafts...)
	})
	require.NoError(t, err)
	b.abandon(t, outbox.RelayConfig{PageRows: 300}, 2)
	var acked, first int64
	require.NoError(t, b.pool.QueryRow(t.Context(), "select acked_sequence from messaging.outbox_state where stream = $1", events).Scan(&acked))
	for i, c := range published(t, b.js, events) {
		if c.Key != "hot" && first == 0 {
			first = int64(i + 1)
		}
	}
	require.Less(t, first, acked, "no row of the second page is below the newest of the first: the test proves nothing")
	b.awaitForgotten(t)
	b.relay(t, outbox.RelayConfig{PageRows: 300})
	b.requireDrained(t)
	b.requireOnce(t, 600)
}

// The broker stored messages and could not say so for longer than its window.
// The relay that sent them is the one that leads on.
//
// A row of docs/DELIVERY.md.
func TestUnansweredMessagesAreNotStoredAgainAfterTheWindow(t *testing.T) {
	t.Parallel()
	for name, pageRows := range map[string]int{"a delta": 100, "a walk": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, url := setupTCP(t)
			shortenDuplicateWindow(t, b)
			w := newWire(t, url)
			w.connect(t, b).relay(t, outbox.RelayConfig{PageRows: pageRows, AckTimeout: 10 * time.Second, LeaseTTL: time.Minute})
			b.enqueue(t, "before", 1)
			b.requireDrained(t)
			w.answers.close()
			b.enqueue(t, "hot", 1, 2, 3)
			for i := range 20 {
				b.enqueue(t, keyName(i), 1)
			}
			require.Eventually(t, func() bool { return storedMessages(t, b.js) > 1 }, 20*time.Second, time.Millisecond)
			b.awaitForgotten(t)
			w.cut() // what was held back is lost
			w.answers.open()
			b.requireDrained(t)
			b.requireOnce(t, 24)
			requireCounted(t, published(t, b.js, events), map[string]int{"hot": 3})
		})
	}
}

// The user may not make consumers, or the stream takes no more: the relay waits
// for a while, and then goes on with what the inbox absorbs.
func TestStreamThatDoesNotTellWhatItHoldsIsPublishedTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s, err := b.js.Stream(t.Context(), events)
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	require.NoError(t, b.js.DeleteStream(t.Context(), events))
	cfg.MaxConsumers, cfg.Duplicates = 1, 100*time.Millisecond
	s, err = b.js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "the_only_one", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	b.enqueueCounted(t, map[string]int{}, 10)
	b.abandon(t, outbox.RelayConfig{AckTimeout: 100 * time.Millisecond}, 1)
	b.awaitForgotten(t)
	var log lines
	b.relay(t, outbox.RelayConfig{AckTimeout: 100 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	b.requireDrained(t)
	require.EqualValues(t, 20, storedMessages(t, b.js), "every one of them twice, which is the price")
	require.Contains(t, log.String(), "does not tell what it holds already")
	require.Contains(t, log.String(), "10026")
}

// lines keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// An operator who rewinds a stream wants all of it again, also what the stream
// holds, and also if the relay is restarted meanwhile.
func TestOperatorsRewindRepeatsWhatTheStreamHolds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	counter := map[string]int{}
	stop := b.relay(t, outbox.RelayConfig{PageRows: 5})
	b.enqueueCounted(t, counter, 30)
	b.requireDrained(t)
	stop()
	b.awaitForgotten(t)
	b.exec(t, "insert into messaging.outbox_rewinds (stream, requested_by, reason) values ($1, 'operator:ola', 'test')", events)
	b.abandon(t, outbox.RelayConfig{PageRows: 5}, 3)
	b.relay(t, outbox.RelayConfig{PageRows: 5})
	b.requireDrained(t)
	b.requireStored(t, events, 60)
	for id, times := range b.ids(t) {
		require.Equal(t, 2, times, id)
	}
}

// remember keeps the outbox as it is, and returns what puts it back there, as a
// restore to a point in time does.
func (b bundle) remember(t *testing.T) (restore func()) {
	t.Helper()
	tables := []string{"outbox_events", "outbox_state", "outbox_anchors"}
	for _, table := range tables {
		b.exec(t, "create table kept_"+table+" as table messaging."+table)
	}
	return func() {
		for _, table := range tables {
			b.exec(t, "delete from messaging."+table)
			b.exec(t, "insert into messaging."+table+" overriding system value select * from kept_"+table)
		}
	}
}

// The database goes back to an earlier moment, the stream does not. What it
// holds of a time that never was is reported, once, and counted.
func TestEventsOfALostTimelineAreReportedOnce(t *testing.T) {
	t.Parallel()
	for name, waiting := range map[string]int{"nothing waits": 0, "rows wait": 7} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			shortenDuplicateWindow(t, b)
			counter := map[string]int{}
			stop := b.relay(t, outbox.RelayConfig{})
			b.enqueueCounted(t, counter, 10)
			b.requireDrained(t)
			stop()
			b.enqueueCounted(t, counter, waiting)
			restore := b.remember(t)
			stop = b.relay(t, outbox.RelayConfig{})
			b.requireDrained(t)
			b.enqueue(t, "lost", numbers(1, 12)...)
			b.requireDrained(t)
			stop()
			b.stranger(t, 3)
			restore()
			b.awaitForgotten(t)
			require.EqualValues(t, waiting, unpublished(t, b))

			var log lines
			logged := outbox.RelayConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))}
			stop = b.relay(t, logged)
			require.Eventually(t, func() bool { return b.status(t).LostTimeline == 12 }, 20*time.Second, 5*time.Millisecond)
			b.requireDrained(t)
			stop()
			b.requireOnce(t, 10+waiting+12)
			require.Contains(t, log.String(), "events=12")
			require.Equal(t, 1, strings.Count(log.String(), "does not know"))

			stop = b.relay(t, logged)
			b.enqueueCounted(t, counter, 3)
			b.requireDrained(t)
			stop()
			require.EqualValues(t, 12, b.status(t).LostTimeline)
			require.Equal(t, 1, strings.Count(log.String(), "does not know"))
			b.requireOnce(t, 10+waiting+12+3)
			require.Zero(t, b.status(t).Rewinds)
		})
	}
}

// A stream that others fill is read once from where it was read last, not from
// our last message on at every start.
func TestStreamOfOthersIsReadOnlyOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueue(t, "a", 1)
	b.requireDrained(t)
	stop()
	b.stranger(t, 20)
	stop = b.relay(t, outbox.RelayConfig{})
	after := func() (n int64) {
		require.NoError(t, b.pool.QueryRow(t.Context(), "select tail_after from messaging.outbox_state where stream = $1", events).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return after() == 21 }, 20*time.Second, 5*time.Millisecond)
	stop()
}

// The last anchor that holds lies in the middle of a walk: what survived of the
// rest of the walk is found in the stream, and what was published after it, too.
func TestRewindIntoAWalkFindsWhatWasStoredBehindIt(t *testing.T) {
	t.Parallel()
	f := setupFrail(t)
	shortenDuplicateWindow(t, f.bundle)
	start := func() func() {
		r := f.newRelay(t, outbox.RelayConfig{PageRows: 7})
		r.AnchorEvery(0)
		return run(t, r)
	}
	counter := map[string]int{}
	f.enqueueCounted(t, counter, 40)
	stop := start()
	f.requireDrained(t)
	f.enqueueEach(t, counter, 3)
	f.save(t)
	f.enqueueEach(t, counter, 3)
	stop()
	f.exec(t, "delete from messaging.outbox_anchors where target is null and stream = $1", events)
	f.lose(t, func() {})
	f.awaitForgotten(t)
	stop = start()
	f.requireAllThere(t, counter)
	f.requireDrained(t)
	stop()
	require.EqualValues(t, 1, f.status(t).Rewinds)
	f.requireOnce(t, 46)
}

// An operator wants what lies behind the place from which the stream's tail is
// read in a term: that it is stored is no reason not to publish it again.
func TestRewindRepeatsWhatTheTailHolds(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"a key": keyName(1), "the stream": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			shortenDuplicateWindow(t, b)
			counter := map[string]int{}
			b.enqueueCounted(t, counter, 60)
			b.abandon(t, outbox.RelayConfig{PageRows: 10}, 4)
			expireLease(t, b)
			b.awaitForgotten(t)
			var behind, acked int
			require.NoError(t, b.pool.QueryRow(t.Context(), "select tail_after, acked_sequence from messaging.outbox_state where stream = $1", events).Scan(&behind, &acked))
			require.Less(t, behind, acked, "the tail holds nothing that the cursor passed")
			var plan outbox.RewindPlan
			ask := sync.OnceFunc(func() {
				r := outbox.RewindRequest{Stream: events, Key: key, All: true, By: ola, Reason: why}
				var err error
				plan, err = outbox.PlanRewind(t.Context(), b.pool, "", r)
				require.NoError(t, err)
				_, err = outbox.RequestRewind(t.Context(), b.pool, "", r)
				require.NoError(t, err)
			})
			r := b.newRelay(t, outbox.RelayConfig{PageRows: 10})
			want := uint64(60 + 60)
			if key == "" {
				r.OnPublished(func(string, int) { // the tail is read by now
					if storedMessages(t, b.js) == 60 { // its last page
						b.awaitForgotten(t)
						ask()
					}
				})
			} else {
				ask()
				want = 60 + uint64(plan.Rows)
			}
			stop := run(t, r)
			b.requireStored(t, events, want)
			b.requireRewound(t)
			b.requireNothingParked(t)
			stop()
			b.requireFirsts(t, counter)
			b.requireStored(t, events, want)
		})
	}
}

// To compare what is left of a tail with the rows reads the whole table. Where that
// takes too long the relay says so and goes on: it must not end one term after the
// other for the sake of a report.
func TestTailThatCannotBeComparedIsNoFault(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.enqueue(t, "kept", 1)
	stop := b.relay(t, outbox.RelayConfig{})
	b.requireDrained(t)
	stop()
	restore := b.remember(t)
	stop = b.relay(t, outbox.RelayConfig{})
	b.enqueue(t, "lost", numbers(1, 12)...)
	b.requireDrained(t)
	stop()
	restore()
	var log lines
	r := b.newRelay(t, outbox.RelayConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	r.CompareWithin(time.Nanosecond)
	stop = run(t, r)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "could not be compared") }, 20*time.Second, time.Millisecond)
	b.enqueue(t, "found", numbers(1, 3)...)
	b.requireStored(t, events, 16)
	b.requireDrained(t)
	requireReady(t, r)
	stop()
	require.Equal(t, 1, strings.Count(log.String(), "could not be compared"))
	require.Equal(t, 1, strings.Count(log.String(), "relay leads"))
}
