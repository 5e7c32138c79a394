package outbox_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/outbox"
)

// elsewhere is constant once it is started: a cluster with an identity of its
// own, which the tests share.
var elsewhere = sync.OnceValues(func() (*pgserver.Server, error) {
	return pgserver.Start(context.Background(), pgserver.Options{})
})

var elsewheres atomic.Int64 // databases in it

// anotherCluster returns b with an empty database in another cluster.
func (b bundle) anotherCluster(t *testing.T) bundle {
	t.Helper()
	server, err := elsewhere()
	require.NoError(t, err)
	name := fmt.Sprintf("elsewhere_%d", elsewheres.Add(1))
	admin, err := pgx.Connect(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "create database "+name)
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	pool, err := pgxpool.New(t.Context(), server.URL(name))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{}))
	b.pool = pool
	return b
}

// burn uses up transaction ids.
func (b bundle) burn(t *testing.T, n int) {
	t.Helper()
	b.exec(t, "create table if not exists burnt (n int)")
	b.exec(t, fmt.Sprintf(`do $$ begin
  for i in 1..%d loop
    begin insert into burnt values (i); raise exception 'no'; exception when others then end;
  end loop;
end $$`, n))
}

// ahead makes this cluster's transaction ids higher than the other's.
func (b bundle) ahead(t *testing.T, of bundle) {
	t.Helper()
	next := func(b bundle) (n int) {
		require.NoError(t, b.pool.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&n))
		return n
	}
	if n := next(of) - next(b); n > -20_000 {
		b.burn(t, n+20_000)
	}
}

// dumped are the tables of an outbox as pg_dump reads them: in one snapshot. The
// sequence is read beside it.
var dumped = []string{
	"outbox_events", "outbox_state", "outbox_anchors", "outbox_parked", "outbox_discarded", "outbox_rewinds",
	"outbox_lease", "outbox_alive", "outbox_foreign",
}

// dump returns what restores the outbox as it is now in another database.
func (b bundle) dump(t *testing.T) (restore func(into bundle, sequence bool)) {
	t.Helper()
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "begin isolation level repeatable read read only")
	require.NoError(t, err)
	data := map[string]*bytes.Buffer{}
	for _, table := range dumped {
		data[table] = &bytes.Buffer{}
		_, err := conn.Conn().PgConn().CopyTo(t.Context(), data[table], "copy messaging."+table+" to stdout")
		require.NoError(t, err)
	}
	_, err = conn.Exec(t.Context(), "commit")
	require.NoError(t, err)
	var last int64
	require.NoError(t, b.pool.QueryRow(t.Context(), "select last_value from messaging.outbox_events_seq_seq").Scan(&last))
	return func(into bundle, sequence bool) {
		conn, err := into.pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
		for _, table := range dumped {
			_, err := conn.Exec(t.Context(), "truncate messaging."+table)
			require.NoError(t, err)
			_, err = conn.Conn().PgConn().CopyFrom(t.Context(), data[table], "copy messaging."+table+" from stdin")
			require.NoError(t, err)
		}
		if sequence {
			into.exec(t, "select setval('messaging.outbox_events_seq_seq', $1)", last)
		}
	}
}

// publishAll publishes n events, and two more in two moves of the cursor: after
// those its floor lies behind the n.
func (b bundle) publishAll(t *testing.T, counter map[string]int, n int) {
	t.Helper()
	stop := b.relay(t, outbox.RelayConfig{})
	for _, n := range []int{n - 2, 1, 1} {
		b.enqueueCounted(t, counter, n)
		b.requireDrained(t)
	}
	stop()
}

// barrier returns what keeps others waiting, and what lets them go; the end of the
// test does, too.
func barrier(t *testing.T) (wait, open func()) {
	opened, ended := make(chan struct{}), t.Context().Done()
	wait = func() {
		select {
		case <-opened:
		case <-ended:
		}
	}
	return wait, sync.OnceFunc(func() { close(opened) })
}

// requireOwn waits until all rows have transaction ids of their own cluster.
func (b bundle) requireOwn(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		var own bool
		require.NoError(t, b.pool.QueryRow(t.Context(), `
select not exists (select from messaging.outbox_events where xid >= pg_snapshot_xmax(pg_current_snapshot()))
   and not exists (select from messaging.outbox_state, pg_control_system() c where outbox_state.system_identifier <> c.system_identifier)`).Scan(&own))
		return own && !b.status(t).Foreign
	}, 20*time.Second, 5*time.Millisecond, "the take-over does not end")
}

// firsts returns for each key the numbers in the order in which they were stored
// first.
func (b bundle) firsts(t *testing.T) map[string][]int {
	t.Helper()
	firsts := map[string][]int{}
	seen := map[counted]bool{}
	for _, c := range published(t, b.js, events) {
		if !seen[c] {
			seen[c] = true
			firsts[c.Key] = append(firsts[c.Key], c.N)
		}
	}
	return firsts
}

func (b bundle) requireFirsts(t *testing.T, totals map[string]int) {
	t.Helper()
	got := b.firsts(t)
	for key, n := range totals {
		require.Equal(t, numbers(1, n), got[key], "key %s", key)
	}
}

// A dump is restored in another cluster, whose transaction ids are lower or
// higher. At the time of the dump some rows are published, some are stored and
// not recorded, some wait; writers write to the restored database before its
// relay starts, and to the old one after the dump. Nothing is skipped, nothing
// stored twice, and keys keep their order.
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
			old := setup(t)
			shortenDuplicateWindow(t, old)
			young := old.anotherCluster(t)
			if c.higher {
				young.ahead(t, old)
			} else {
				old.ahead(t, young)
			}
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

			// A rewind to the very beginning finds the rows of before.
			young.exec(t, "insert into messaging.outbox_rewinds (stream, requested_by, reason) values ($1, 'operator:ola', 'test')", events)
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
func TestTakeOverIsKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	old, url := setupTCP(t)
	shortenDuplicateWindow(t, old)
	young := old.anotherCluster(t)
	old.ahead(t, young)
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

// Writers do not stop for a take-over: 8 of them write before, during and after
// it, and one transaction that wrote before it began is open all the time.
func TestTakeOverWhileWritersWrite(t *testing.T) {
	t.Parallel()
	for _, higher := range []bool{false, true} {
		t.Run(fmt.Sprintf("higher %v", higher), func(t *testing.T) {
			t.Parallel()
			old := setup(t)
			young := old.anotherCluster(t)
			if higher {
				young.ahead(t, old)
			} else {
				old.ahead(t, young)
			}
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
	stop = young.relay(t, outbox.RelayConfig{})
	young.requireStored(t, events, 40)
	young.requireOwn(t)
	young.requireDrained(t)
	stop()
	young.requireOnce(t, 40)
	requireCounted(t, published(t, young.js, events), counter)
}

// Rows of another cluster that come while a relay leads are noticed within
// seconds; before, they would be published at every poll.
func TestRowsOfAnotherClusterThatComeLaterAreTakenOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	b.relay(t, outbox.RelayConfig{})
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
			stop = third.relay(t, outbox.RelayConfig{})
			third.requireAllThere(t, counter)
			third.requireOwn(t)
			third.requireDrained(t)
			stop()
			third.requireFirsts(t, counter)
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
// rewind nor a release may miss rows that still have foreign ids.
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
	old.enqueue(t, "good", numbers(1, 50)...)
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
	atStep(r, 5, "rewritten", wait)
	stop = run(t, r)
	young.enqueue(t, "good", 51) // new rows do not wait
	young.requireStored(t, events, 51)
	young.requireDrained(t)
	require.True(t, young.status(t).Foreign)
	open()
	young.requireNothingParked(t)
	young.requireOwn(t)
	young.requireStored(t, events, 54)
	young.awaitForgotten(t)
	young.exec(t, "insert into messaging.outbox_rewinds (stream, requested_by, reason) values ($1, 'operator:ola', 'test')", events)
	young.requireStored(t, events, 2*54)
	stop()
	for id, times := range young.ids(t) {
		require.Equal(t, 2, times, id)
	}
}

// The first base is a snapshot like any other: the database crashes after it is
// taken, and the term that took it may not go on.
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
	old := setup(t)
	young := old.anotherCluster(t)
	old.ahead(t, young)
	counter := map[string]int{}
	old.publishAll(t, counter, 50)
	old.dump(t)(young, true)
	expireLease(t, young)
	r := young.newRelay(t, outbox.RelayConfig{PageRows: 20, ProbeInterval: 20 * time.Millisecond})
	wait, open := barrier(t)
	atStep(r, 5, "rewritten 2", wait)
	stop = run(t, r)
	young.enqueueCounted(t, counter, 3)
	young.requireStored(t, events, 53)
	require.NoError(t, young.js.DeleteStream(t.Context(), events))
	createStreams(t, young.js)
	requireRecreated(t, young, r)
	require.NoError(t, outbox.AcceptStream(t.Context(), young.pool, "", events, "operator:ola", "the disk was replaced"))
	require.Eventually(t, func() bool { return r.Ready() == nil }, 20*time.Second, time.Millisecond)
	young.enqueueCounted(t, counter, 3)
	young.awaitForgotten(t) // some polls
	require.True(t, young.status(t).Foreign)
	open()
	young.requireStored(t, events, 56)
	young.requireDrained(t)
	stop()
	requireCounted(t, published(t, young.js, events), counter)
}
