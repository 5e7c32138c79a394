package inbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

const lease = "DV_MASKIN_EVT/plattform__from_maskin"

// acquire takes the lease for a holder, who must get it.
func (b *bundle) acquire(t *testing.T, holder string, ttl time.Duration) envelope.Fence {
	t.Helper()
	f, _, held, err := b.in.Acquire(t.Context(), lease, holder, ttl)
	require.NoError(t, err)
	require.True(t, held)
	return f
}

func TestLeaseHasOneHolderUntilItRunsOutOrIsReleased(t *testing.T) {
	t.Parallel()
	b := setup(t)
	try := func(holder string, ttl time.Duration) (envelope.Fence, bool) {
		f, _, held, err := b.in.Acquire(t.Context(), lease, holder, ttl)
		require.NoError(t, err)
		return f, held
	}
	first, held := try("a", time.Minute)
	require.True(t, held)
	require.Equal(t, envelope.Fence{Lease: lease, Term: 1}, first)
	_, held = try("b", time.Minute)
	require.False(t, held)
	again, held := try("a", time.Minute) // its own, after a fault
	require.True(t, held)
	require.Equal(t, int64(2), again.Term)
	held, err := b.in.Renew(t.Context(), first, time.Minute)
	require.NoError(t, err)
	require.False(t, held, "an old term is renewed")

	require.NoError(t, b.in.Release(t.Context(), first)) // not its any more
	_, held = try("b", time.Minute)
	require.False(t, held)
	require.NoError(t, b.in.Release(t.Context(), again))
	third, held := try("b", time.Millisecond)
	require.True(t, held)
	require.Equal(t, int64(3), third.Term)
	require.Eventually(t, func() bool { _, held := try("c", time.Minute); return held }, 20*time.Second, time.Millisecond)
	held, err = b.in.Renew(t.Context(), third, time.Minute)
	require.NoError(t, err)
	require.False(t, held)
}

func TestPositionOnlyGrowsAndIsFenced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := b.acquire(t, "a", time.Minute)
	require.NoError(t, b.in.Reached(t.Context(), f, 42))
	require.NoError(t, b.in.Reached(t.Context(), f, 7))
	require.NoError(t, b.in.Release(t.Context(), f))
	_, delivered, held, err := b.in.Acquire(t.Context(), lease, "b", time.Minute)
	require.NoError(t, err)
	require.True(t, held)
	require.Equal(t, uint64(42), delivered)
	require.ErrorIs(t, b.in.Reached(t.Context(), f, 99), envelope.ErrFenced)
}

func TestHeldKeysAreFenced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.acquire(t, "a", time.Minute)
	m := newMessage()
	key := envelope.HeldKey{Key: "srv-1", LetterID: letter, Source: m.Source, MessageID: m.ID}
	require.NoError(t, b.in.Hold(t.Context(), old, key))
	require.NoError(t, b.in.Hold(t.Context(), old, key), "a repeat after a crash")
	require.NoError(t, b.in.Release(t.Context(), old))
	f := b.acquire(t, "b", time.Minute)
	require.ErrorIs(t, b.in.Hold(t.Context(), old, envelope.HeldKey{Key: "srv-2", LetterID: letter, Source: m.Source, MessageID: m.ID}), envelope.ErrFenced)
	require.NoError(t, b.in.Unhold(t.Context(), old, letter))
	held, err := b.in.HeldKeys(t.Context(), f)
	require.NoError(t, err)
	require.Equal(t, []envelope.HeldKey{key}, held)
	require.NoError(t, b.in.Unhold(t.Context(), f, letter))
	held, err = b.in.HeldKeys(t.Context(), f)
	require.NoError(t, err)
	require.Empty(t, held)
}

// An instance that was overtaken and wakes begins no effect.
//
// A row of docs/DELIVERY.md.
func TestHandlerOfAnEarlierTermHasNoEffect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.acquire(t, "a", time.Minute)
	d := delivery(newMessage(), `{"hostname":"h"}`)
	d.Fence = old
	require.NoError(t, b.in.Release(t.Context(), old))
	current := b.acquire(t, "b", time.Minute)
	require.ErrorIs(t, b.route().Handle(t.Context(), d), envelope.ErrFenced)
	require.Zero(t, b.effects(t)+b.rows(t))
	d.Fence = current
	require.NoError(t, b.route().Handle(t.Context(), d))
	require.ErrorIs(t, b.route().Handle(t.Context(), d), envelope.ErrAlreadyProcessed)
	require.Equal(t, 1, b.effects(t))
}

// One that hangs in the middle of a handler would make its successor wait for its
// row. The take-over ends its session instead, and of sessions no other.
func TestTakeOverEndsTransactionsOfEarlierTerms(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.acquire(t, "a", time.Minute)
	m, other := newMessage(), newMessage()
	begun, finish, bystander := make(chan error, 2), make(chan struct{}), make(chan error, 1)
	stuck := make(chan error, 1)
	hang := inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, r envelope.Received[serverV1]) error {
		begun <- nil
		<-finish
		return apply(inbox.Message{Source: r.Envelope.Source.String(), ID: r.Envelope.ID})(ctx, tx)
	})
	d, e := delivery(m, `{"hostname":"h"}`), delivery(other, `{"hostname":"h"}`)
	d.Fence = old
	go func() { stuck <- hang.Handle(context.Background(), d) }()
	go func() { bystander <- hang.Handle(context.Background(), e) }()
	<-begun
	<-begun

	require.NoError(t, b.in.Release(t.Context(), old))
	again := delivery(m, `{"hostname":"h"}`)
	again.Fence = b.acquire(t, "b", time.Minute)
	require.NoError(t, b.route().Handle(t.Context(), again), "the successor waits for whoever hangs")
	close(finish)
	require.Error(t, <-stuck)
	require.NoError(t, <-bystander)
	require.Equal(t, 1, b.count(t, `select count(*) from effect where message = $1`, m.Source+"/"+m.ID))
}

// A handler that had begun before the take-over and commits after it is met by
// its successor, who waits for the outcome: first the one effect, then what comes
// after it. Here the role may not end sessions.
func TestCommitAfterTheTakeOverComesBeforeTheSuccessorsNextMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.acquire(t, "a", time.Minute)
	m := newMessage()
	begun, finish, first := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	d := delivery(m, `{"hostname":"h"}`)
	d.Fence = old
	hang := inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, _ envelope.Received[serverV1]) error {
		close(begun)
		<-finish
		return apply(m)(ctx, tx)
	})
	go func() { first <- hang.Handle(context.Background(), d) }()
	<-begun
	_, err := b.pool.Exec(t.Context(), `update messaging.inbox_leases set term = term + 1, holder = 'b'`)
	require.NoError(t, err)

	second := make(chan error, 1)
	again := delivery(m, `{"hostname":"h"}`)
	again.Fence = envelope.Fence{Lease: lease, Term: old.Term + 1}
	go func() { second <- b.route().Handle(context.Background(), again) }()
	require.Eventually(t, func() bool {
		return b.count(t, `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`) == 1
	}, 20*time.Second, time.Millisecond)
	close(finish)
	require.NoError(t, <-first)
	require.ErrorIs(t, <-second, envelope.ErrAlreadyProcessed)
	require.Equal(t, 1, b.effects(t))
}

// Around a take-over a batch may hold messages of two terms: those of the earlier
// one have no effect, the others theirs.
func TestBatchAppliesNothingOfAnEarlierTerm(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.acquire(t, "a", time.Minute)
	require.NoError(t, b.in.Release(t.Context(), old))
	current := b.acquire(t, "b", time.Minute)
	all := deliveries(4)
	for i, d := range all {
		d.Fence = []envelope.Fence{current, old}[i%2]
	}
	errs := together(t, inbox.OnBatch(b.in, provisioned, inbox.Batch{Size: len(all), Wait: time.Second}, applyAll), all...)
	requireNone(t, []error{errs[0], errs[2]})
	require.ErrorIs(t, errs[1], envelope.ErrFenced)
	require.ErrorIs(t, errs[3], envelope.ErrFenced)
	require.Equal(t, 2, b.effects(t))
	require.Equal(t, 2, b.rows(t))
}

// An instance that was overtaken parks nothing: it may be handled already, and its
// followers too.
func TestParkingIsFenced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.acquire(t, "a", time.Minute)
	m := newMessage()
	p := &envelope.Parked{
		Source: m.Source, MessageID: m.ID, Durable: "plattform__from_maskin", Key: "srv-1", Stream: "DV_MASKIN_EVT",
		StreamCreated: time.Now(), Sequence: 1, StoredAt: time.Now(), Subject: "dv.maskin.evt.server.provisioned", Data: []byte("{}"), Attempts: 1, Fence: old,
	}
	require.NoError(t, b.in.Park(t.Context(), p, time.Hour))
	require.NoError(t, b.in.Park(t.Context(), p, time.Hour), "a repeat")
	require.NoError(t, b.in.Release(t.Context(), old))
	current := b.acquire(t, "b", time.Minute)
	next := *p
	next.MessageID, next.Sequence = newMessage().ID, 2
	require.ErrorIs(t, b.in.Park(t.Context(), &next, time.Hour), envelope.ErrFenced)
	_, err := b.in.ParkBehind(t.Context(), &next)
	require.ErrorIs(t, err, envelope.ErrFenced)
	next.Fence = current
	parked, err := b.in.ParkBehind(t.Context(), &next)
	require.NoError(t, err)
	require.True(t, parked)
	keys, err := b.in.ParkedKeys(t.Context(), p.Durable)
	require.NoError(t, err)
	require.Equal(t, []string{"srv-1"}, keys)
}

// A take-over reads the held keys when it has the lease, so it must not get that
// between the look at the lease and the commit of a row.
func TestTakeOverWaitsForAHoldThatIsUnderWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.acquire(t, "a", time.Minute)
	b.exec(t, `
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.3); return new; end $$;
create trigger slow after insert on messaging.inbox_held_keys for each row execute function slow()`)
	m := newMessage()
	key := envelope.HeldKey{Key: "srv-1", LetterID: letter, Source: m.Source, MessageID: m.ID}
	holding := make(chan error, 1)
	go func() { holding <- b.in.Hold(context.Background(), old, key) }()
	require.Eventually(t, func() bool {
		return b.count(t, `select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`) == 1
	}, 20*time.Second, time.Millisecond)
	held, err := b.in.HeldKeys(t.Context(), b.acquire(t, "a", time.Minute))
	require.NoError(t, err)
	require.Equal(t, []envelope.HeldKey{key}, held)
	require.NoError(t, <-holding)
}
