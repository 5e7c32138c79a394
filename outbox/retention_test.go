package outbox_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

// keeper is a relay that looks for rows to delete all the time, and copies every
// cursor. Its horizon is a day: tests make anchors old.
type keeper struct {
	bundle
	relay  *outbox.Relay
	passes atomic.Int64
	stop   func()
}

func (b bundle) keeper(t testing.TB, cfg outbox.RelayConfig, rows int) *keeper {
	t.Helper()
	k := b.newKeeper(t, cfg, rows)
	k.stop = run(t, k.relay)
	return k
}

// newKeeper returns a keeper that does not run yet.
func (b bundle) newKeeper(t testing.TB, cfg outbox.RelayConfig, rows int) *keeper {
	t.Helper()
	cfg.ProbeInterval = 10 * time.Millisecond
	k := &keeper{bundle: b, relay: b.newRelay(t, cfg)}
	k.relay.AnchorEvery(0)
	k.relay.Retain(24*time.Hour, 3*time.Millisecond, rows)
	k.relay.OnRetained(func() { k.passes.Add(1) })
	return k
}

// await returns after retention has looked at everything a few times.
func (k *keeper) await(t testing.TB) {
	t.Helper()
	seen := k.passes.Load()
	require.Eventually(t, func() bool { return k.passes.Load() > seen+5 }, 30*time.Second, time.Millisecond, "retention does not run")
}

// age makes the anchors older than the horizon, except the newest n.
func (b bundle) age(t testing.TB, except int) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `
update messaging.outbox_anchors set at = at - interval '25 hours'
 where at > now() - interval '24 hours' and at not in (select at from messaging.outbox_anchors order by at desc limit $1)`, except)
	require.NoError(t, err)
}

// seqs are the rows that are left, in order.
func (b bundle) seqs(t testing.TB) []int64 {
	t.Helper()
	rows, err := b.pool.Query(t.Context(), "select seq from messaging.outbox_events order by seq")
	require.NoError(t, err)
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	require.NoError(t, err)
	return seqs
}

func (b bundle) requireSeqs(t testing.TB, want ...int64) {
	t.Helper()
	if !assertEventually(t, func() bool { return fmt.Sprint(b.seqs(t)) == fmt.Sprint(want) }) {
		require.Equal(t, want, b.seqs(t))
	}
}

func assertEventually(t testing.TB, condition func() bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(2 * time.Millisecond):
		}
	}
	return true
}

func (b bundle) number(t testing.TB, sql string) (n int) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(t.Context(), sql).Scan(&n))
	return n
}

func TestRetentionIsBoundedOrOff(t *testing.T) {
	t.Parallel()
	b := bundle{pool: &pgxpool.Pool{}, js: dvtest.NATS(t).JetStream(), out: newOutbox(t)}
	for _, d := range []time.Duration{time.Second, 91 * 24 * time.Hour} {
		_, err := outbox.NewRelay(b.out, b.pool, b.js, outbox.RelayConfig{Retention: d})
		require.ErrorContains(t, err, "RelayConfig.Retention: "+d.String()+" is out of range; use 1m to 2160h")
	}
	for _, d := range []time.Duration{-1, time.Minute, 90 * 24 * time.Hour} {
		_, err := outbox.NewRelay(b.out, b.pool, b.js, outbox.RelayConfig{Retention: d})
		require.NoError(t, err)
	}
}

// A published row goes when the anchor that covers it is too old, and not
// before. The anchor stays, for it is where the next rewind goes back to; those
// before it go with the rows.
func TestPublishedRowsAreDeletedWithTheAnchorsBeforeTheirs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k := b.keeper(t, outbox.RelayConfig{}, 4)
	counter := map[string]int{}
	b.enqueueEach(t, counter, 20)
	k.await(t)
	require.Len(t, b.seqs(t), 20, "rows were deleted before their time")

	// The newest anchor is the cursor before the last page; the old one before it
	// does not cover the last two.
	b.age(t, 1)
	b.requireSeqs(t, 19, 20)
	k.await(t)
	require.Equal(t, 2, b.number(t, "select count(*) from messaging.outbox_anchors"))
	require.Equal(t, 18, b.number(t, "select acked_sequence from messaging.outbox_anchors order by at limit 1"))

	b.enqueueEach(t, counter, 1)
	b.age(t, 0)
	b.requireSeqs(t, 21)
	k.await(t)
	require.Equal(t, 1, b.number(t, "select count(*) from messaging.outbox_anchors"), "the newest anchor beyond the horizon must stay")
	b.requireStored(t, events, 21)
	requireReady(t, k.relay)
	require.NoError(t, k.relay.Alarm())
}

// The row of a long transaction has a low number and is hours old when it becomes
// visible. It is published only then, and stays as long as any other.
func TestRowOfALongTransactionStaysAsLongAsAnyOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	long, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.out.Enqueue(origin(t.Context()), long, serverCounted.New("long", counted{Key: "long", N: 1})))
	_, err = long.Exec(t.Context(), "update messaging.outbox_events set created_at = now() - interval '3 days'")
	require.NoError(t, err)
	k := b.keeper(t, outbox.RelayConfig{}, 3)
	counter := map[string]int{}
	b.enqueueEach(t, counter, 10) // 2 to 11
	b.age(t, 0)
	b.requireSeqs(t, 11)
	require.NoError(t, long.Commit(t.Context()))
	b.requireDrained(t)
	b.requireStored(t, events, 11)
	k.await(t)
	require.Equal(t, []int64{1, 11}, b.seqs(t))
	b.enqueueEach(t, counter, 2)
	k.await(t)
	require.Equal(t, []int64{1, 11, 12, 13}, b.seqs(t), "a row went by its age, or by an anchor that does not cover it")
	b.age(t, 0)
	b.requireSeqs(t, 13)
}

// While a backlog is walked its anchors are positions in the walk.
func TestRowsOfAWalkAreDeletedUpToTheAnchorsPosition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	k := b.newKeeper(t, outbox.RelayConfig{PageRows: 5}, 4)
	reached, resume := make(chan struct{}), make(chan struct{})
	var backlog, held atomic.Bool
	k.relay.OnPublished(func(string, int) {
		switch {
		case backlog.CompareAndSwap(true, false):
			// While a page is under way: the floor that its commit records lies
			// above the backlog, and bounds nothing.
			var bulk []envelope.Draft
			for n := range 200 { // 3 to 202
				bulk = append(bulk, serverCounted.New("bulk", counted{Key: "bulk", N: n + 1}))
			}
			err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error { return b.out.Enqueue(origin(t.Context()), tx, bulk...) })
			if err != nil {
				t.Error(err)
			}
		case !held.Load():
			var anchors int
			err := b.pool.QueryRow(t.Context(), "select count(*) from messaging.outbox_anchors where position > 20").Scan(&anchors)
			if err != nil || anchors == 0 {
				return
			}
			held.Store(true)
			close(reached)
			<-resume
		}
	})
	k.stop = run(t, k.relay)
	b.enqueueEach(t, counter, 1)
	k.await(t)
	backlog.Store(true)
	b.enqueue(t, "last", 1) // 2
	counter["last"], counter["bulk"] = 1, 200
	<-reached
	b.age(t, 0)
	var position int64
	require.NoError(t, b.pool.QueryRow(t.Context(),
		"select position from messaging.outbox_anchors where at < now() - interval '24 hours' order by at desc limit 1").Scan(&position))
	require.Less(t, position, int64(201))
	b.requireSeqs(t, numbers64(position+1, 202)...)
	k.await(t)
	b.requireSeqs(t, numbers64(position+1, 202)...)
	close(resume)
	b.requireDrained(t)
	b.requireStored(t, events, 202)
	requireCounted(t, published(t, b.js, events), counter)
}

// What an operator may still release must be there. Rows before the head were
// published, and rows of discarded messages go with the note that they were
// discarded.
func TestRowsOfParkedKeysStay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueueEach(t, counter, 12) // key-00: 1 4 7 10, key-01: 2 5 8 11, key-02: 3 6 9 12
	stop()
	b.exec(t, `
insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
select stream, ordering_key, seq, id, subject, 'too large' from messaging.outbox_events where seq in (4, 5)`)
	b.exec(t, `
insert into messaging.outbox_discarded (stream, id, seq, ordering_key, subject, cause, discarded_by, reason)
select stream, id, seq, ordering_key, subject, 'too large', 'operator:ola', 'a test' from messaging.outbox_events where seq in (3, 8, 9)`)
	k := b.keeper(t, outbox.RelayConfig{}, 2)
	for n := range 2 { // 13 and 14
		b.enqueue(t, "key-03", n+1)
		b.requireDrained(t)
	}
	b.age(t, 0)
	b.requireSeqs(t, 4, 5, 7, 8, 10, 11, 14)
	k.await(t)
	b.requireSeqs(t, 4, 5, 7, 8, 10, 11, 14)
	require.Equal(t, 8, b.number(t, "select sum(seq) from messaging.outbox_discarded"))

	b.exec(t, "delete from messaging.outbox_parked where seq = 5")
	b.requireSeqs(t, 4, 7, 10, 14)
	require.Zero(t, b.number(t, "select count(*) from messaging.outbox_discarded"))
	b.exec(t, "update messaging.outbox_parked set seq = 7")
	b.requireSeqs(t, 7, 10, 14)
}

// A row that a release publishes lies behind anchors from long before. It must
// not go by one of those: the broker may lose it like any other new message.
func TestRowsOfAReleasedKeyStayLikeNewOnes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	k := b.newKeeper(t, outbox.RelayConfig{}, 100)
	var hold atomic.Bool
	entered, resume := make(chan struct{}), make(chan struct{})
	k.relay.OnPublished(func(string, int) {
		if hold.CompareAndSwap(true, false) {
			close(entered)
			<-resume
		}
	})
	k.stop = run(t, k.relay)
	b.enqueueEach(t, counter, 11)
	b.exec(t, `
insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
select stream, ordering_key, seq, id, subject, 'too large' from messaging.outbox_events where seq = 4`)
	k.await(t)
	hold.Store(true)
	b.releaseKey(t, "key-00")
	<-entered // published, and not recorded
	b.age(t, 0)
	b.requireSeqs(t, 4, 7, 10, 11)
	close(resume)
	b.requireNothingParked(t)
	k.await(t)
	require.Equal(t, []int64{4, 7, 10, 11}, b.seqs(t))
	b.enqueueEach(t, counter, 2)
	k.await(t)
	require.Equal(t, []int64{4, 7, 10, 11, 12, 13}, b.seqs(t))
	b.exec(t, "update messaging.outbox_state set released_at = released_at - interval '26 hours'")
	b.age(t, 0)
	b.requireSeqs(t, 13)
}

// Nothing goes while there is doubt whether the stream holds what follows it.
//
// A row of docs/DELIVERY.md.
func TestNothingIsDeletedByAnAnchorThatIsNotChecked(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, *keeper) (left int){
		"of another stream": func(t *testing.T, k *keeper) int {
			k.exec(t, "update messaging.outbox_anchors set stream_created = stream_created - interval '1 second'")
			return 10
		},
		"of an unknown stream": func(t *testing.T, k *keeper) int {
			k.exec(t, "update messaging.outbox_anchors set stream_created = null")
			return 10
		},
		"without a message": func(t *testing.T, k *keeper) int {
			k.exec(t, "update messaging.outbox_anchors set acked_sequence = 0, acked_id = null")
			return 10
		},
		"the stream is gone": func(t *testing.T, k *keeper) int {
			require.NoError(t, k.js.DeleteStream(t.Context(), events))
			return 10
		},
		"the stream was made anew": func(t *testing.T, k *keeper) int {
			require.NoError(t, k.js.DeleteStream(t.Context(), events))
			createStreams(t, k.js)
			requireRecreated(t, k.bundle, k.relay)
			return 10
		},
		// The guard looks at the newest messages only. Retention finds this, and has
		// the relay look closely; then the anchor before holds, and its rows may go.
		"the anchor's message is lost": func(t *testing.T, k *keeper) int {
			s, err := k.js.Stream(t.Context(), events)
			require.NoError(t, err)
			require.NoError(t, s.SecureDeleteMsg(t.Context(), uint64(k.number(t, "select max(acked_sequence) from messaging.outbox_anchors"))))
			k.age(t, 0)
			require.Eventually(t, func() bool { return k.status(t).Rewinds > 0 }, 20*time.Second, time.Millisecond)
			return 2
		},
		"the newest message is lost": func(t *testing.T, k *keeper) int {
			s, err := k.js.Stream(t.Context(), events)
			require.NoError(t, err)
			require.NoError(t, s.SecureDeleteMsg(t.Context(), s.CachedInfo().State.LastSeq))
			k.age(t, 0)
			require.Eventually(t, func() bool { return k.status(t).Rewinds > 0 }, 20*time.Second, time.Millisecond)
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			k := b.keeper(t, outbox.RelayConfig{}, 100)
			b.enqueueEach(t, map[string]int{}, 10)
			k.await(t)
			left := spoil(t, k)
			b.age(t, 0)
			k.await(t)
			require.Subset(t, b.seqs(t), numbers64(11-int64(left), 10))
			require.NotContains(t, fmt.Sprint(k.relay.Alarm()), "stay")
		})
	}
}

// A message that aged out of the stream, or was purged, is not lost: rows that
// stay longer than the stream keeps messages must go one day, too.
func TestRowsGoAlsoWhenTheirMessagesAgedOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.keeper(t, outbox.RelayConfig{}, 100)
	b.enqueueEach(t, map[string]int{}, 10)
	s, err := b.js.Stream(t.Context(), events)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context()))
	b.age(t, 0)
	b.requireSeqs(t, 10)
}

// After rows were deleted the relay can still go back to the anchor by which they
// were, and everything since is there again.
func TestRewindAfterRetentionFindsEverythingSinceTheOldestAnchor(t *testing.T) {
	t.Parallel()
	f := setupFrail(t)
	k := f.keeper(t, outbox.RelayConfig{}, 3)
	counter := map[string]int{}
	f.enqueueEach(t, counter, 10)
	f.save(t)
	f.enqueueEach(t, counter, 10)
	f.age(t, 12) // the oldest anchor that stays is of the seventh message
	f.requireSeqs(t, numbers64(8, 20)...)
	f.lose(t, func() {})
	f.requireAllThere(t, counter)
	f.requireDrained(t)
	require.EqualValues(t, 1, f.status(t).Rewinds)
	k.await(t)
	f.requireSeqs(t, numbers64(8, 20)...)
}

// A broker that lost more than the rows' horizon gets what there is.
func TestBrokerThatLostMoreThanTheHorizonGetsWhatThereIs(t *testing.T) {
	t.Parallel()
	f := setupFrail(t)
	f.keeper(t, outbox.RelayConfig{}, 3)
	counter := map[string]int{}
	f.enqueueEach(t, counter, 3)
	f.save(t)
	f.enqueueEach(t, counter, 9)
	f.age(t, 3)
	f.requireSeqs(t, numbers64(9, 12)...)
	f.lose(t, func() {})
	f.requireStored(t, events, 3+4)
	f.requireDrained(t)
	require.Zero(t, f.number(t, "select lost_timeline from messaging.outbox_state where stream = 'DV_MASKIN_EVT'"), "deleted rows are taken for a lost timeline")
	f.requireSeqs(t, numbers64(9, 12)...)
}

func numbers64(from, to int64) []int64 {
	var ns []int64
	for n := from; n <= to; n++ {
		ns = append(ns, n)
	}
	return ns
}
