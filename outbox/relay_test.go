package outbox_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

func TestRelayPublishesTheStoredBytesAndHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.relay(t, outbox.RelayConfig{Site: "dc1"})
	b.enqueue(t, "a", 1)
	b.requireStored(t, "DV_MASKIN_EVT", 1)

	var id string
	var stored []byte
	require.NoError(t, b.pool.QueryRow(t.Context(), "select id::text, envelope from messaging.outbox_events").Scan(&id, &stored))
	s, err := b.js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	m, err := s.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, stored, m.Data)
	require.Equal(t, id, m.Header.Get(envelope.HeaderMsgID))
	require.Equal(t, "dc1", m.Header.Get(envelope.HeaderSite))
	e, err := envelope.Decode(m.Data)
	require.NoError(t, err)
	require.NoError(t, e.CheckHeader(envelope.Header(m.Header)))
}

// A row of docs/DELIVERY.md.
func TestRolledBackTransactionPublishesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.relay(t, outbox.RelayConfig{})
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", counted{Key: "phantom", N: 1})))
	require.NoError(t, tx.Rollback(t.Context()))
	b.enqueue(t, "a", 1) // committed later: once it is there, the other would be too
	b.requireStored(t, "DV_MASKIN_EVT", 1)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"a": 1})
}

// The measurement behind the snapshot cursor, as a test. Writers take their
// transaction id before or after the key's lock, use savepoints, roll back
// whole or in part, and one transaction stays open all the time. A sequence
// cursor loses rows here, and an xmin-fenced (xid, seq) cursor inverts keys.
//
// A row of docs/DELIVERY.md.
func TestConcurrentWritersLoseDoubleAndReorderNothing(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]outbox.RelayConfig{
		"every delta fits a page": {PageRows: 5000},
		"every delta is walked":   {PageRows: 7},
		"pages of few bytes":      {PageBytes: 4096},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.relay(t, cfg)
			w := newWriters(t, b, 16)
			long := w.openLongTransaction(t)
			w.run(t, 60)
			require.NoError(t, long.Commit(t.Context()))
			totals := w.totals(t)
			var want uint64
			for _, n := range totals {
				want += uint64(n)
			}
			b.requireStored(t, "DV_MASKIN_EVT", want)
			requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), totals)
		})
	}
}

// writers are concurrent transactions on few keys.
type writers struct {
	bundle
	count int
}

func newWriters(t *testing.T, b bundle, count int) *writers {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), `
create table counter (key text primary key, n int not null default 0);
create table touched (n int);
insert into counter (key) select 'key-' || to_char(g, 'fm00') from generate_series(0, 9) g;
insert into counter (key) values ('long')`)
	require.NoError(t, err)
	return &writers{b, count}
}

func (w *writers) run(t *testing.T, transactions int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range w.count {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 42))
			for range transactions {
				if err := w.transaction(t.Context(), rnd); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// transaction counts one key up and says so; it may be rolled back.
func (w *writers) transaction(ctx context.Context, rnd *rand.Rand) error {
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if rnd.IntN(2) == 0 { // the transaction id is older than the key's lock
		if _, err := tx.Exec(ctx, "insert into touched values (1)"); err != nil {
			return err
		}
	}
	key := keyName(rnd.IntN(10))
	if err := w.count1(ctx, tx, key); err != nil {
		return err
	}
	if rnd.IntN(3) == 0 { // a savepoint that is rolled back takes its message along
		err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error {
			if err := w.count1(ctx, sp, key); err != nil {
				return err
			}
			if rnd.IntN(2) == 0 {
				return pgx.ErrTxCommitRollback
			}
			return nil
		})
		if err != nil && err != pgx.ErrTxCommitRollback {
			return err
		}
	}
	if rnd.IntN(5) == 0 {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// count1 locks the key, as a service locks its aggregate, and then enqueues.
func (w *writers) count1(ctx context.Context, tx pgx.Tx, key string) error {
	var n int
	if err := tx.QueryRow(ctx, "update counter set n = n + 1 where key = $1 returning n", key).Scan(&n); err != nil {
		return err
	}
	return w.out.Enqueue(origin(ctx), tx, serverCounted.New(key, counted{Key: key, N: n}))
}

// openLongTransaction has an old transaction id, and rows with low numbers
// that become visible last.
func (w *writers) openLongTransaction(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := w.pool.Begin(t.Context())
	require.NoError(t, err)
	for range 30 {
		require.NoError(t, w.count1(t.Context(), tx, "long"))
	}
	return tx
}

func (w *writers) totals(t *testing.T) map[string]int {
	t.Helper()
	rows, err := w.pool.Query(t.Context(), "select key, n from counter")
	require.NoError(t, err)
	totals := map[string]int{}
	var key string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error { totals[key] = n; return nil })
	require.NoError(t, err)
	require.Equal(t, 30, totals["long"])
	return totals
}

// A page must not skip a row that commits late with a number below the walk's
// position, nor one that commits while the walk goes on.
//
// A row of docs/DELIVERY.md.
func TestBacklogIsWalkedWithLateCommitsOfLowNumbers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := newWriters(t, b, 4)
	long := w.openLongTransaction(t)
	w.run(t, 30)
	b.relay(t, outbox.RelayConfig{PageRows: 10})
	require.Eventually(t, func() bool {
		st, err := outbox.ReadStatus(t.Context(), b.pool, "")
		return err == nil && len(st.Streams) == 2 && st.Streams[0].Unpublished == 0
	}, 30*time.Second, 5*time.Millisecond)
	require.NoError(t, long.Commit(t.Context()))
	totals := w.totals(t)
	var want uint64
	for _, n := range totals {
		want += uint64(n)
	}
	b.requireStored(t, "DV_MASKIN_EVT", want)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), totals)
}

// A walk that is cut off is resumed from its committed position by whoever
// leads next.
func TestInterruptedWalkIsResumedByTheNextLeader(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.enqueue(t, "a", numbers(1, 40)...)
	first := b.newRelay(t, outbox.RelayConfig{PageRows: 5})
	pages := make(chan struct{}, 100)
	resume := make(chan struct{})
	first.OnPublished(func(string, int) {
		pages <- struct{}{}
		if len(pages) == 3 {
			<-resume
		}
	})
	stop := run(t, first)
	require.Eventually(t, func() bool { return len(pages) == 3 }, 20*time.Second, time.Millisecond)
	close(resume)
	stop()
	st, err := outbox.ReadStatus(t.Context(), b.pool, "")
	require.NoError(t, err)
	require.True(t, st.Streams[0].Walking)
	require.False(t, st.Led, "a graceful stop hands the lease over")

	b.relay(t, outbox.RelayConfig{PageRows: 5})
	b.requireStored(t, "DV_MASKIN_EVT", 40)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"a": 40})
}

func numbers(from, to int) []int {
	var ns []int
	for n := from; n <= to; n++ {
		ns = append(ns, n)
	}
	return ns
}

func TestIdlePollWritesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.relay(t, outbox.RelayConfig{})
	b.enqueue(t, "a", 1)
	b.requireStored(t, "DV_MASKIN_EVT", 1)
	b.requirePublishedAll(t)
	b.enqueue(t, "a", 2) // after the first news of a term it is noted once what it found
	b.requireStored(t, "DV_MASKIN_EVT", 2)
	var before, after string
	base := "select string_agg(ctid::text || base::text || xmin::text, ' ' order by stream) from messaging.outbox_state"
	require.Eventually(t, func() bool {
		st, err := outbox.ReadStatus(t.Context(), b.pool, "")
		return err == nil && st.Streams[0].Unpublished == 0
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, b.pool.QueryRow(t.Context(), base).Scan(&before))
	for range 20 { // transaction ids go on, polls see nothing new
		_, err := b.pool.Exec(t.Context(), "select pg_current_xact_id()")
		require.NoError(t, err)
		var polls int
		require.NoError(t, b.pool.QueryRow(t.Context(), "select 1").Scan(&polls))
	}
	require.NoError(t, b.pool.QueryRow(t.Context(), base).Scan(&after))
	require.Equal(t, before, after)
}

func TestOneRelayLeadsAndAStandbyTakesOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stopA := b.relay(t, outbox.RelayConfig{Holder: "a", LeaseTTL: time.Minute})
	requireLeader(t, b, "a")
	b.relay(t, outbox.RelayConfig{Holder: "b", LeaseTTL: time.Second})
	b.enqueue(t, "k", numbers(1, 50)...)
	b.requireStored(t, "DV_MASKIN_EVT", 50)
	requireLeader(t, b, "a")
	stopA()
	requireLeader(t, b, "b")
	b.enqueue(t, "k", numbers(51, 100)...)
	b.requireStored(t, "DV_MASKIN_EVT", 100)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"k": 100})
}

func requireLeader(t *testing.T, b bundle, holder string) {
	t.Helper()
	require.Eventually(t, func() bool {
		st, err := outbox.ReadStatus(t.Context(), b.pool, "")
		return err == nil && st.Led && st.Leader == holder
	}, 20*time.Second, 5*time.Millisecond, "%s does not lead", holder)
}

// A leader that slept past its lease must not move the cursor, whatever it
// published: the term fences every write.
func TestRelayThatLostItsLeaseCannotMoveTheCursor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	zombie := b.newRelay(t, outbox.RelayConfig{Holder: "zombie", LeaseTTL: time.Second})
	published1, resume := make(chan struct{}), make(chan struct{})
	var once sync.Once
	zombie.OnPublished(func(string, int) {
		once.Do(func() {
			close(published1)
			<-resume
		})
	})
	run(t, zombie)
	b.enqueue(t, "a", 1)
	<-published1
	// Somebody else takes over while the zombie sleeps with its page stored.
	_, err := b.pool.Exec(t.Context(), "update messaging.outbox_lease set holder = 'other', term = term + 1, expires_at = clock_timestamp() + interval '1 hour'")
	require.NoError(t, err)
	var before, after string
	require.NoError(t, b.pool.QueryRow(t.Context(), "select base::text from messaging.outbox_state where stream = 'DV_MASKIN_EVT'").Scan(&before))
	close(resume)
	require.Eventually(t, func() bool { return !zombie.Leading() }, 20*time.Second, time.Millisecond)
	require.NoError(t, b.pool.QueryRow(t.Context(), "select base::text from messaging.outbox_state where stream = 'DV_MASKIN_EVT'").Scan(&after))
	require.Equal(t, before, after, "the cursor moved without the lease")
}

func TestMissingStreamHoldsBackOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.js.DeleteStream(t.Context(), "DV_NETT_CMD"))
	r := b.newRelay(t, outbox.RelayConfig{})
	run(t, r)
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return b.out.Enqueue(origin(t.Context()), tx, provision.New("link", counted{Key: "c", N: 1}))
	})
	require.NoError(t, err)
	b.enqueue(t, "a", numbers(1, 20)...)
	b.requireStored(t, "DV_MASKIN_EVT", 20)
	requireNotReady(t, r, "DV_NETT_CMD")

	createStreams(t, b.js)
	b.requireStored(t, "DV_NETT_CMD", 1)
	requireReady(t, r)
}

func TestFullStreamHoldsBackOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s, err := b.js.Stream(t.Context(), "DV_NETT_CMD")
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = 3
	_, err = b.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	b.relay(t, outbox.RelayConfig{})
	for n := range 6 {
		err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			return b.out.Enqueue(origin(t.Context()), tx, provision.New("link", counted{Key: "c", N: n + 1}))
		})
		require.NoError(t, err)
	}
	b.requireStored(t, "DV_NETT_CMD", 3)
	b.enqueue(t, "a", numbers(1, 20)...)
	b.requireStored(t, "DV_MASKIN_EVT", 20)
	cfg.MaxMsgs = -1
	_, err = b.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	b.requireStored(t, "DV_NETT_CMD", 6)
	requireCounted(t, published(t, b.js, "DV_NETT_CMD"), map[string]int{"c": 6})
}

// Whoever writes with a newer topology than the relay's must not be forgotten.
func TestRowsOfAnUndeclaredStreamAreAdopted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.enqueue(t, "a", 1)
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"dv.objekt.evt.>"}})
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `
insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select 'OTHER', gen_random_uuid(), 'dv.objekt.evt.bucket.made', 'k', headers, envelope from messaging.outbox_events`)
	require.NoError(t, err)
	b.relay(t, outbox.RelayConfig{})
	b.requireStored(t, "OTHER", 1)
}

func TestRelayWithoutTablesSaysSo(t *testing.T) {
	t.Parallel()
	b := bundle{pool: dvtest.EmptyPostgres(t), js: dvtest.NATS(t).JetStream(), out: newOutbox(t)}
	r := b.newRelay(t, outbox.RelayConfig{})
	require.ErrorIs(t, r.Run(t.Context()), outbox.ErrNotMigrated)
	require.ErrorContains(t, r.Run(t.Context()), "called twice")
}

// A process that was stopped between getting the lease and declaring its term
// wakes up when another one leads: it may not end that one's term.
func TestLeaderStoppedBeforeItDeclaredItsTermDisturbsNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table messaging.outbox_alive in exclusive mode")
	require.NoError(t, err)
	r := b.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Second})
	run(t, r)
	require.Eventually(t, func() bool {
		var waits bool
		require.NoError(t, b.pool.QueryRow(t.Context(), "select exists (select from pg_locks l join pg_class c on c.oid = l.relation where c.relname = 'outbox_alive' and not l.granted)").Scan(&waits))
		return waits
	}, 20*time.Second, time.Millisecond)
	_, err = tx.Exec(t.Context(), "update messaging.outbox_lease set holder = 'other', term = term + 1, expires_at = clock_timestamp() + interval '1 hour'")
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into messaging.outbox_alive select term from messaging.outbox_lease")
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	require.Eventually(t, func() bool { return !r.Leading() }, 20*time.Second, time.Millisecond)
	var alive bool
	require.NoError(t, b.pool.QueryRow(t.Context(), "select exists (select from messaging.outbox_alive a join messaging.outbox_lease l using (term) where holder = 'other')").Scan(&alive))
	require.True(t, alive, "the term of the new leader is void")
}

// holdState keeps all moves of a stream's cursor waiting until the transaction
// ends.
func (b bundle) holdState(t *testing.T) pgx.Tx {
	t.Helper()
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "select from messaging.outbox_state where stream = $1 for update", events)
	require.NoError(t, err)
	return tx
}

// requireWaiting waits until a statement that contains a text waits for a lock.
func (b bundle) requireWaiting(t *testing.T, statement string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var waits bool
		require.NoError(t, b.pool.QueryRow(t.Context(), `
select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and position($1 in query) > 0)`, statement).Scan(&waits))
		return waits
	}, 20*time.Second, time.Millisecond, "no %s waits", statement)
}

// Moves of cursors do not hold up the renewal of the lease: with many busy streams
// there is always one under way, and new ones do not queue up behind a renewal. Who
// lost the lease would wait for the move to get it again.
func TestLeaseIsRenewedWhileAMoveIsUnderWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.relay(t, outbox.RelayConfig{LeaseTTL: 10 * time.Second})
	b.enqueue(t, "a", 1)
	b.requireDrained(t)
	tx := b.holdState(t)
	b.enqueue(t, "a", 2)
	b.requireWaiting(t, "update")
	expires := func() (at time.Time) {
		require.NoError(t, b.pool.QueryRow(t.Context(), "select expires_at from messaging.outbox_lease").Scan(&at))
		return at
	}
	before := expires()
	require.Eventually(t, func() bool { return expires().After(before) }, 20*time.Second, 10*time.Millisecond, "the lease is not renewed")
	require.NoError(t, tx.Commit(t.Context()))
	b.requireDrained(t)
}

// But who takes the lease over waits for a move that is under way, and reads what
// it wrote.
func TestTakeOverOfTheLeaseWaitsForAMoveUnderWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.relay(t, outbox.RelayConfig{LeaseTTL: time.Minute})
	b.enqueue(t, "a", 1)
	b.requireDrained(t)
	tx := b.holdState(t)
	b.enqueue(t, "a", 2)
	b.requireWaiting(t, "update")
	expireLease(t, b)
	next := b.newRelay(t, outbox.RelayConfig{Holder: "next", LeaseTTL: 20 * time.Second})
	run(t, next)
	b.requireWaiting(t, "outbox_lease as l")
	require.False(t, next.Leading())
	require.NoError(t, tx.Commit(t.Context()))
	requireLeader(t, b, "next")
	b.requireDrained(t)
	b.enqueue(t, "a", 3)
	b.requireDrained(t)
	requireCounted(t, published(t, b.js, events), map[string]int{"a": 3})
}

// A delta, and a walk, is over with its last answer. It was over at the next look
// for late answers, so that every event waited for up to 50 ms.
func TestPublishingEndsWithItsLastAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{PageRows: 4})
	r.Tick(time.Hour)
	run(t, r)
	for n := range uint64(3) {
		b.copyMessages(t, 3)
		b.requireStored(t, events, 13*n+3)
		b.copyMessages(t, 10)
		b.requireStored(t, events, 13*n+13)
	}
}
