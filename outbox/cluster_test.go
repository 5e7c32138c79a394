package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// A dump is restored in another cluster, whose transaction ids are lower or
// higher. At the time of the dump some rows are published, some are stored and
// not recorded, some wait; writers write to the restored database before its
// relay starts, and to the old one after the dump. Nothing is skipped, nothing
// stored twice, and keys keep their order.
//
// A row of docs/DELIVERY.md.
func TestDumpRestoredInAnotherClusterGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		walk     bool // the dump is made in the middle of a walk
		higher   bool // the other cluster is ahead
		batch    int
		pageRows int
	}{
		{name: "lower ids", batch: 7, pageRows: 100},
		{name: "higher ids", higher: true, batch: 7, pageRows: 100},
		{name: "lower ids, in a walk", walk: true, batch: 5000, pageRows: 10},
		{name: "higher ids, in a walk", walk: true, higher: true, batch: 3, pageRows: 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			shortenDuplicateWindow(t, b)
			old, young := b.twoClusters(t, c.higher)
			counter := map[string]int{}
			stop := old.relay(t, outbox.RelayConfig{PageRows: c.pageRows})
			old.enqueueCounted(t, counter, 23)
			old.requireDrained(t)
			stop()
			if c.walk {
				old.enqueueCounted(t, counter, 47)
				old.abandon(t, outbox.RelayConfig{PageRows: c.pageRows}, 3)
				require.True(t, old.status(t).Walking)
			} else {
				old.enqueueCounted(t, counter, 9)
				old.abandon(t, outbox.RelayConfig{PageRows: c.pageRows}, 1)
			}
			old.enqueueCounted(t, counter, 11)
			require.Positive(t, unpublished(t, old))
			restore := old.dump(t)
			var anchored time.Time
			require.NoError(t, old.pool.QueryRow(t.Context(), "select max(at) from messaging.outbox_anchors where stream = $1", events).Scan(&anchored))

			old.enqueue(t, "after the dump", 1, 2, 3)
			stop = old.relay(t, outbox.RelayConfig{PageRows: c.pageRows})
			old.requireDrained(t)
			stop()

			restore(young, true)
			expireLease(t, young)
			young.enqueueCounted(t, counter, 10)
			young.awaitForgotten(t)
			start := func() func() {
				r := young.newRelay(t, outbox.RelayConfig{PageRows: c.pageRows})
				r.OnForeign(c.batch, nil)
				return run(t, r)
			}
			stop = start()
			young.requireOwn(t)
			young.requireDrained(t)
			young.enqueueCounted(t, counter, 5)
			young.requireDrained(t)
			stop()
			total := 0
			for _, n := range counter {
				total += n
			}
			young.requireOnce(t, total+3)
			young.requireFirsts(t, counter)
			require.EqualValues(t, 3, young.status(t).LostTimeline)

			stop = start() // and it is done
			young.enqueueCounted(t, counter, 1)
			young.requireDrained(t)
			stop()
			young.requireOnce(t, total+3+1)

			// Anchors of the other cluster are no places to go back to: it is the very
			// beginning, which finds the rows of before.
			young.exec(t, "insert into messaging.outbox_rewinds (stream, anchor_at, requested_by, reason) values ($1, $2, 'operator:ola', 'test')", events, anchored)
			young.awaitForgotten(t)
			stop = start()
			young.requireStored(t, events, uint64(2*(total+1)+3))
			stop()
			for id, times := range young.ids(t) {
				require.LessOrEqual(t, times, 2, id)
			}
		})
	}
}

// Writers do not stop for a take-over: 8 of them write before, during and after
// it, and one transaction that wrote before it began is open all the time.
//
// A row of docs/DELIVERY.md.
func TestTakeOverWhileWritersWrite(t *testing.T) {
	t.Parallel()
	for _, higher := range []bool{false, true} {
		t.Run(fmt.Sprintf("higher %v", higher), func(t *testing.T) {
			t.Parallel()
			old, young := setup(t).twoClusters(t, higher)
			old.enqueue(t, "old", numbers(1, 50)...)
			stop := old.relay(t, outbox.RelayConfig{})
			old.requireDrained(t)
			stop()
			old.enqueue(t, "old", numbers(51, 150)...)
			old.dump(t)(young, true)
			expireLease(t, young)
			w := newWriters(t, young, 8)
			long := w.openLongTransaction(t)
			r := young.newRelay(t, outbox.RelayConfig{PageRows: 50})
			var wg sync.WaitGroup
			r.OnForeign(10, func(step string) {
				switch step {
				case "begun":
					wg.Go(func() { w.run(t, 40) })
				case "told", "rewritten": // let them write
					require.NoError(t, w.count1Committed(t.Context(), "key-00"))
				}
			})
			stop = run(t, r)
			young.requireOwn(t)
			wg.Wait()
			young.requireDrained(t)
			require.NoError(t, long.Commit(t.Context()))
			young.requireDrained(t)
			totals := w.totals(t)
			totals["old"] = 150
			requireCounted(t, published(t, young.js, events), totals)
			stop()
		})
	}
}

// A transaction has its id and its number, and nothing ended since, when the relay
// reads the number that is to be the floor of its first base: the base does not
// know of that transaction, so the floor may not hide its row.
func TestWriterThatIsOpenWhenATakeOverBeginsIsNotLost(t *testing.T) {
	t.Parallel()
	old, young := setup(t).twoClusters(t, false)
	counter := map[string]int{}
	old.publishAll(t, counter, 20)
	old.dump(t)(young, true)
	expireLease(t, young)
	tx, err := young.pool.Begin(t.Context())
	require.NoError(t, err)
	r := young.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Minute}) // no renewal draws an id meanwhile
	wait, open := barrier(t)
	streams, committed := 2, make(chan error, 1)
	r.OnForeign(1000, func(step string) {
		switch step {
		case "found":
			err = young.out.Enqueue(origin(t.Context()), tx, serverCounted.New("open", counted{Key: "open", N: 1}))
		case "taken":
			if streams--; streams == 0 {
				committed <- errors.Join(err, tx.Commit(t.Context()))
			}
		case "rewritten": // until then rows are found by their number
			wait()
		}
	})
	run(t, r)
	require.NoError(t, <-committed)
	young.enqueueCounted(t, counter, 3)
	young.requireStored(t, events, 24)
	require.True(t, young.status(t).Foreign)
	open()
	young.requireOwn(t)
	young.requireDrained(t)
	counter["open"] = 1
	requireCounted(t, published(t, young.js, events), counter)
}

// A transaction that the foreign base calls open has low numbers, far below the
// floor, and committed before the dump was made.
func TestTransactionThatWasOpenInAnotherClusterIsNotLost(t *testing.T) {
	t.Parallel()
	old, young := setup(t).twoClusters(t, false)
	w := newWriters(t, old, 1)
	long := w.openLongTransaction(t)
	counter := map[string]int{}
	old.publishAll(t, counter, 20)
	require.NoError(t, long.Commit(t.Context()))
	old.dump(t)(young, true)
	expireLease(t, young)
	young.relay(t, outbox.RelayConfig{})
	young.requireOwn(t)
	young.requireDrained(t)
	counter["long"] = 30
	requireCounted(t, published(t, young.js, events), counter)
}

// count1Committed counts a key up in a transaction of its own.
func (w *writers) count1Committed(ctx context.Context, key string) error {
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error { return w.count1(ctx, tx, key) })
}

// The rows were copied by hand and the sequence was not: writers of the new
// cluster take numbers that rows of the old one had, as far as retention has
// removed those. None of theirs may count as published, and no number is given
// out twice from then on.
func TestTakeOverWithoutTheSequence(t *testing.T) {
	t.Parallel()
	old := setup(t)
	shortenDuplicateWindow(t, old)
	young := old.anotherCluster(t)
	old.ahead(t, young)
	counter := map[string]int{}
	old.publishAll(t, counter, 40)
	old.exec(t, "delete from messaging.outbox_events where seq <= 20")
	old.enqueueCounted(t, counter, 5)
	old.dump(t)(young, false)
	expireLease(t, young)
	young.enqueue(t, "early", numbers(1, 12)...)

	// A transaction that has written keeps the sequence from being set, for as
	// long as it likes; and the relay that waits for it keeps other writers for a
	// moment only.
	tx, err := young.pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, young.out.Enqueue(origin(t.Context()), tx, serverCounted.New("late", counted{Key: "late", N: 1})))
	r := young.newRelay(t, outbox.RelayConfig{})
	stop := run(t, r)
	require.Eventually(t, func() bool { return r.Ready() != nil && strings.Contains(r.Ready().Error(), "without writers") }, 20*time.Second, time.Millisecond)
	began := time.Now()
	young.enqueue(t, "early", 13)
	require.Less(t, time.Since(began), 5*time.Second)
	require.NoError(t, tx.Commit(t.Context()))

	young.requireOwn(t)
	young.requireDrained(t)
	young.enqueue(t, "early", 14)
	young.requireDrained(t)
	stop()
	young.requireOnce(t, 40+5+12+1+1+1)
	counter["early"], counter["late"] = 14, 1
	young.requireFirsts(t, counter)
	var last int64
	require.NoError(t, young.pool.QueryRow(t.Context(), "select max(seq) from messaging.outbox_events where ordering_key = 'early'").Scan(&last))
	require.Greater(t, last, int64(45))
}

// Somebody deletes the cursors after a restore, as some advice has it: which
// rows are published is not known then, and all of them are, again, but for
// those that the stream still holds.
func TestTakeOverWithoutTheCursors(t *testing.T) {
	t.Parallel()
	old := setup(t)
	shortenDuplicateWindow(t, old)
	young := old.anotherCluster(t)
	old.ahead(t, young)
	counter := map[string]int{}
	old.publishAll(t, counter, 30)
	old.enqueueCounted(t, counter, 10)
	old.dump(t)(young, true)
	young.exec(t, "truncate messaging.outbox_state, messaging.outbox_anchors")
	young.awaitForgotten(t)
	expireLease(t, young)
	stop := young.relay(t, outbox.RelayConfig{})
	young.requireStored(t, events, 40)
	young.requireOwn(t)
	young.requireDrained(t)
	stop()
	young.requireOnce(t, 40)
	requireCounted(t, published(t, young.js, events), counter)
}

// Rows of another cluster that come while a relay leads are noticed at its next
// look; before, they would be published at every poll.
func TestRowsOfAnotherClusterThatComeLaterAreTakenOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	r := b.newRelay(t, outbox.RelayConfig{})
	r.ReviseEvery(100 * time.Millisecond)
	run(t, r)
	b.enqueueCounted(t, counter, 10)
	b.requireDrained(t)
	b.exec(t, "update messaging.outbox_events set xid = '99999999999' where seq > 5")
	require.Eventually(t, func() bool {
		var future int
		require.NoError(t, b.pool.QueryRow(t.Context(), "select count(*) from messaging.outbox_events where xid = '99999999999'").Scan(&future))
		return future == 0
	}, 30*time.Second, 10*time.Millisecond)
	b.requireOwn(t)
	b.requireDrained(t)
	b.requireOnce(t, 10)
}

// pg_upgrade gives the cluster a new identity and keeps all transaction ids:
// what is published stays as it is, nothing is published again, and no row is
// written but those that were not published.
//
// A row of docs/DELIVERY.md.
func TestUpgradedClusterPublishesNothingAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	counter := map[string]int{}
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueueCounted(t, counter, 40)
	b.requireDrained(t)
	stop()
	b.enqueueCounted(t, counter, 10)
	b.exec(t, "update messaging.outbox_state set system_identifier = 42")
	b.enqueueCounted(t, counter, 5)
	expireLease(t, b)
	rows := func() (all string) {
		require.NoError(t, b.pool.QueryRow(t.Context(),
			"select string_agg(ctid::text || xid::text, ' ' order by seq) from messaging.outbox_events where seq <= 40").Scan(&all))
		return all
	}
	before := rows()
	s, err := b.js.Stream(t.Context(), events)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context())) // so that a repeat cannot be found there
	b.awaitForgotten(t)
	stop = b.relay(t, outbox.RelayConfig{})
	b.requireOwn(t)
	b.requireDrained(t)
	stop()
	require.Equal(t, before, rows())
	b.requireOnce(t, 15)
}

// The same in the middle of a walk: what the walk has passed is published.
func TestClusterUpgradedInAWalkGoesOnBehindItsPosition(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	counter := map[string]int{}
	b.publishAll(t, counter, 10)
	b.enqueueCounted(t, counter, 50)
	b.abandon(t, outbox.RelayConfig{PageRows: 10}, 3)
	var waiting int
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select count(*) from messaging.outbox_events e join messaging.outbox_state s using (stream)
 where s.target is not null and s.position > s.floor and e.seq > s.position`).Scan(&waiting))
	require.Positive(t, waiting)
	require.Less(t, waiting, 50)
	b.exec(t, "update messaging.outbox_state set system_identifier = 42")
	expireLease(t, b)
	s, err := b.js.Stream(t.Context(), events)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context())) // so that a repeat cannot be found there
	b.awaitForgotten(t)
	b.relay(t, outbox.RelayConfig{})
	b.requireOwn(t)
	b.requireDrained(t)
	b.requireOnce(t, waiting)
}
