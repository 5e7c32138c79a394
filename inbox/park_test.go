package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

const byDurable = "plattform__from_maskin"

// parked is a message of a key, stored at a sequence.
func parked(key string, sequence uint64) *envelope.Parked {
	return &envelope.Parked{
		Source: "maskin", MessageID: uuid.NewString(), Durable: byDurable, Key: key,
		Stream: "DV_MASKIN_EVT", StreamCreated: time.Unix(1_800_000_000, 0), Sequence: sequence, StoredAt: time.Unix(1_800_000_100, 0),
		Subject: provisioned.Subject().String(), Header: envelope.Header{"A": {"1", "\xff"}, "Dv-Type": {"x"}}, Data: []byte("\x00{}"),
		Attempts: 1, Reason: "broken \x00 \xff",
	}
}

// claim takes everything that is due.
func (b *bundle) claim(t *testing.T, lease time.Duration, heads bool) []*envelope.Parked {
	t.Helper()
	due, err := b.in.ClaimParked(t.Context(), byDurable, 100, lease, heads)
	require.NoError(t, err)
	slices.SortFunc(due, func(a, b *envelope.Parked) int { return int(a.Sequence) - int(b.Sequence) })
	return due
}

func sequences(due []*envelope.Parked) []uint64 {
	all := []uint64{}
	for _, p := range due {
		all = append(all, p.Sequence)
	}
	return all
}

func TestParkedMessageComesBackAsItWentAndOnlyWhenItIsDue(t *testing.T) {
	t.Parallel()
	b, p, later := setup(t), parked("srv-1", 7), parked("srv-2", 8)
	require.NoError(t, b.in.Park(t.Context(), p, 0))
	require.NoError(t, b.in.Park(t.Context(), later, time.Hour))
	count, next, err := b.in.SurveyParked(t.Context(), byDurable, 100, false)
	require.NoError(t, err)
	require.Equal(t, 2, count)
	require.LessOrEqual(t, next, time.Duration(0))
	due := b.claim(t, time.Minute, false)
	require.Len(t, due, 1)
	got := due[0]
	require.NotEmpty(t, got.Claim)
	require.True(t, p.StoredAt.Equal(got.StoredAt))
	require.True(t, p.StreamCreated.Equal(got.StreamCreated))
	want := *p
	want.Claim, want.StoredAt, want.StreamCreated, want.Reason = got.Claim, got.StoredAt, got.StreamCreated, "broken \uFFFD \uFFFD"
	require.Equal(t, want, *got)
	require.Empty(t, b.claim(t, time.Minute, false), "it is claimed")
	_, next, err = b.in.SurveyParked(t.Context(), byDurable, 100, false)
	require.NoError(t, err)
	require.InDelta(t, time.Minute, next, float64(10*time.Second), "the claim may end")

	due, err = b.in.ClaimParked(t.Context(), "plattform__other", 100, time.Minute, false)
	require.NoError(t, err)
	require.Empty(t, due, "another durable")
}

// requireParkingWorks uses every statement about parked messages but those under
// a lease.
func requireParkingWorks(t *testing.T, in *inbox.Inbox) {
	t.Helper()
	ctx := t.Context()
	for range 10 { // the plan for any arguments comes later than the first ones
		require.NoError(t, in.Park(ctx, parked("a", 1), 0))
	}
	_, err := in.ParkedKeys(ctx, byDurable)
	require.NoError(t, err)
	for _, heads := range []bool{false, true} {
		_, _, err = in.SurveyParked(ctx, byDurable, 1, heads)
		require.NoError(t, err)
		due, err := in.ClaimParked(ctx, byDurable, 1, time.Minute, heads)
		require.NoError(t, err)
		require.Len(t, due, 1)
		require.NoError(t, errors.Join(in.ExtendParked(ctx, due[0], time.Minute), in.ReturnParked(ctx, due[0], 0)))
	}
	due, err := in.ClaimParked(ctx, byDurable, 2, time.Minute, false)
	require.NoError(t, err)
	require.NoError(t, inbox.On(in, provisioned, failing(nil)).Handle(ctx, taken(due[0])))
	require.NoError(t, in.Unpark(ctx, due[1]))
}

func TestParkingTwiceKeepsTheFirst(t *testing.T) {
	t.Parallel()
	b, p := setup(t), parked("srv-1", 7)
	require.NoError(t, b.in.Park(t.Context(), p, time.Hour))
	p.Sequence = 9
	require.NoError(t, b.in.Park(t.Context(), p, 0))
	require.Empty(t, b.claim(t, time.Minute, false))
	count, _, err := b.in.SurveyParked(t.Context(), byDurable, 100, false)
	require.NoError(t, err)
	require.Equal(t, 1, count)
}

func TestParkedMessageIsClaimedByOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 100 {
		require.NoError(t, b.in.Park(t.Context(), parked("srv-1", uint64(i)), 0))
	}
	var mu sync.Mutex
	var got []uint64
	var claimers sync.WaitGroup
	for range 4 {
		claimers.Go(func() {
			for {
				due, err := b.in.ClaimParked(context.Background(), byDurable, 7, time.Minute, false)
				if err != nil || len(due) == 0 {
					return
				}
				mu.Lock()
				got = append(got, sequences(due)...)
				mu.Unlock()
			}
		})
	}
	claimers.Wait()
	got = append(got, sequences(b.claim(t, time.Minute, false))...) // rows that were locked at the last look
	slices.Sort(got)
	require.Len(t, got, 100)
	require.Len(t, slices.Compact(got), 100)
}

// taken is a message that this process has claimed, as its handler meets it.
func taken(p *envelope.Parked) *envelope.Delivery {
	d := delivery(inbox.Message{Source: p.Source, ID: p.MessageID, LetterID: p.LetterID}, `{"hostname":"h"}`)
	d.Claim = p.Claim
	return d
}

func (b *bundle) parkedRows(t *testing.T) int {
	return b.count(t, `select count(*) from messaging.inbox_parked`)
}

func TestEffectAndUnparkingAreOneTransaction(t *testing.T) {
	t.Parallel()
	b, p := setup(t), parked("srv-1", 1)
	require.NoError(t, b.in.Park(t.Context(), p, 0))
	p = b.claim(t, time.Minute, false)[0]
	failing := inbox.On(b.in, provisioned, func(context.Context, pgx.Tx, envelope.Received[serverV1]) error { return context.Canceled })
	require.ErrorIs(t, failing.Handle(t.Context(), taken(p)), context.Canceled)
	require.Equal(t, 1, b.parkedRows(t))
	require.NoError(t, b.route().Handle(t.Context(), taken(p)))
	require.Equal(t, []int{0, 1, 1}, []int{b.parkedRows(t), b.rows(t), b.effects(t)})
	require.NoError(t, b.in.Unpark(t.Context(), p), "what follows finds nothing to do")
}

// A process that hung while its claim ran out wakes when another one has the
// message: it must neither start, nor apply, nor settle anything.
func TestLostClaimHasNoEffect(t *testing.T) {
	t.Parallel()
	b, p := setup(t), parked("srv-1", 1)
	require.NoError(t, b.in.Park(t.Context(), p, 0))
	old := b.claim(t, 0, false)[0]
	now := b.claim(t, time.Minute, false)[0]
	starts, err := b.in.Begin(t.Context(), taken(old))
	require.NoError(t, err)
	require.True(t, starts.Handled)
	require.ErrorIs(t, b.route().Handle(t.Context(), taken(old)), envelope.ErrParked)
	require.NoError(t, b.in.ExtendParked(t.Context(), old, time.Hour))
	require.NoError(t, b.in.ReturnParked(t.Context(), old, 0))
	require.NoError(t, b.in.Unpark(t.Context(), old))
	require.Empty(t, b.claim(t, time.Minute, false), "given back by somebody who had lost it")
	require.Zero(t, b.effects(t))

	starts, err = b.in.Begin(t.Context(), taken(now))
	require.NoError(t, err)
	require.Equal(t, 1, starts.Count)
	require.NoError(t, b.route().Handle(t.Context(), taken(now)))
	require.Equal(t, 1, b.effects(t))
	require.ErrorIs(t, b.route().Handle(t.Context(), taken(now)), envelope.ErrParked, "done under this claim")
}

// A claim that ran out while its transaction runs: the lock holds.
func TestMessageWhoseTransactionRunsIsNotClaimed(t *testing.T) {
	t.Parallel()
	for _, letterID := range []string{"", letter} {
		b, p := setup(t), parked("srv-1", 1)
		p.LetterID = letterID
		require.NoError(t, b.in.Park(t.Context(), p, 0))
		p = b.claim(t, 0, false)[0]
		slow := inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, m envelope.Received[serverV1]) error {
			if err := b.in.ExtendParked(ctx, p, time.Hour); err != nil { // does not wait
				return err
			}
			if due := b.claim(t, time.Minute, false); len(due) > 0 {
				return fmt.Errorf("claimed: %v", sequences(due))
			}
			return nil
		})
		require.NoError(t, slow.Handle(t.Context(), taken(p)))
	}
}

// A delivery of what is parked, by the stream.
func TestDeliveryOfAParkedMessageHasNoEffect(t *testing.T) {
	t.Parallel()
	for _, letterID := range []string{"", letter} {
		b, p := setup(t), parked("srv-1", 1)
		p.LetterID = letterID
		require.NoError(t, b.in.Park(t.Context(), p, time.Hour))
		d := taken(p)
		starts, err := b.in.Begin(t.Context(), d)
		require.NoError(t, err)
		require.True(t, starts.Handled)
		err = b.route().Handle(t.Context(), d)
		if letterID == "" {
			require.ErrorIs(t, err, envelope.ErrAlreadyProcessed)
		} else {
			require.ErrorIs(t, err, envelope.ErrParked)
			require.NotErrorIs(t, err, envelope.ErrAlreadyProcessed, "its letter would be resolved")
		}
		require.Zero(t, b.effects(t))
		require.Zero(t, b.count(t, `select count(*) from messaging.inbox_attempts`))
	}
}

// The letter of a replay is resolved after the commit, and before the row goes.
func TestRowOfAReplayOutlivesItsEffect(t *testing.T) {
	t.Parallel()
	b, p := setup(t), parked("srv-1", 1)
	p.LetterID = letter
	require.NoError(t, b.in.Park(t.Context(), p, 0))
	p = b.claim(t, 0, false)[0]
	require.NoError(t, b.route().Handle(t.Context(), taken(p)))
	require.Equal(t, []int{1, 1}, []int{b.parkedRows(t), b.effects(t)})
	p = b.claim(t, time.Minute, false)[0] // the process died
	require.ErrorIs(t, b.route().Handle(t.Context(), taken(p)), envelope.ErrAlreadyProcessed)
	require.NoError(t, b.in.Unpark(t.Context(), p))
	require.Equal(t, []int{0, 1}, []int{b.parkedRows(t), b.effects(t)})
}

func TestMessageOfAParkedKeyIsAppendedBehindIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fence := b.acquire(t, "a", time.Minute)
	behind := func(key string, sequence uint64) bool {
		t.Helper()
		p := parked(key, sequence)
		p.Fence = fence
		is, err := b.in.ParkBehind(t.Context(), p)
		require.NoError(t, err)
		return is
	}
	require.False(t, behind("a", 1), "the key is free")
	require.NoError(t, b.in.Park(t.Context(), parked("a", 10), time.Hour))
	require.NoError(t, b.in.Park(t.Context(), parked("c", 11), 0))
	require.True(t, behind("a", 12))
	require.True(t, behind("c", 14))
	require.True(t, behind("c", 13))
	require.False(t, behind("b", 15))
	keys, err := b.in.ParkedKeys(t.Context(), byDurable)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"a", "c"}, keys)

	for _, want := range []uint64{11, 13, 14} {
		due := b.claim(t, time.Minute, true)
		require.Equal(t, []uint64{want}, sequences(due), "what is behind a head waits for it")
		require.Empty(t, b.claim(t, time.Minute, true), "while it is being handled, too")
		require.NoError(t, b.in.Unpark(t.Context(), due[0]))
	}
	count, next, err := b.in.SurveyParked(t.Context(), byDurable, 100, true)
	require.NoError(t, err)
	require.Equal(t, 2, count)
	require.InDelta(t, time.Hour, next, float64(time.Minute), "12 is not due, it is behind 10")
}

// A key that waits for an operator is not handed out: it would wait in memory. The
// message that became the letter is, and other keys are.
func TestParkedHeadOfAHeldKeyIsNotClaimed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fence := b.acquire(t, "a", time.Minute)
	follower, letter, free := parked("held", 1), parked("own", 2), parked("free", 3)
	for _, p := range []*envelope.Parked{follower, letter} {
		require.NoError(t, b.in.Park(t.Context(), p, 0))
	}
	hold := func(key, message string) {
		require.NoError(t, b.in.Hold(t.Context(), fence, envelope.HeldKey{Key: key, LetterID: "l-" + key, Source: "maskin", MessageID: message}))
	}
	hold("held", uuid.NewString())
	hold("own", letter.MessageID)
	due := b.claim(t, time.Minute, true)
	require.Equal(t, []uint64{2}, sequences(due))
	require.NoError(t, b.in.Unpark(t.Context(), due[0]))
	count, next, err := b.in.SurveyParked(t.Context(), byDurable, 100, true)
	require.NoError(t, err)
	require.Equal(t, 1, count)
	require.Equal(t, time.Hour, next, "nothing is due before the operator decides")
	require.NoError(t, b.in.Park(t.Context(), free, 0))
	require.Equal(t, []uint64{3}, sequences(b.claim(t, time.Minute, true)))
	require.NoError(t, b.in.Unhold(t.Context(), fence, "l-held"))
	require.Equal(t, []uint64{1}, sequences(b.claim(t, time.Minute, true)))
}

func TestParkingBehindTwiceIsOnce(t *testing.T) {
	t.Parallel()
	b, p := setup(t), parked("a", 2)
	p.Fence = b.acquire(t, "a", time.Minute)
	require.NoError(t, b.in.Park(t.Context(), parked("a", 1), time.Hour))
	for range 2 {
		is, err := b.in.ParkBehind(t.Context(), p)
		require.NoError(t, err)
		require.True(t, is)
	}
	require.Equal(t, 2, b.parkedRows(t))
}

// In a batch, what is parked is left out, and a parked one that is due is handled
// alone, as it has to be unparked.
func TestParkedMessageIsNoPartOfABatch(t *testing.T) {
	t.Parallel()
	b, p := setup(t), parked("srv-1", 1)
	require.NoError(t, b.in.Park(t.Context(), p, 0))
	var mu sync.Mutex
	var sizes []int
	route := func(size int) envelope.Route {
		return inbox.OnBatch(b.in, provisioned, inbox.FullBatch(size), func(ctx context.Context, tx pgx.Tx, all []received) error {
			mu.Lock()
			sizes = append(sizes, len(all))
			mu.Unlock()
			return applyAll(ctx, tx, all)
		})
	}
	others := deliveries(2)
	errs := together(t, route(3), others[0], taken(p), others[1])
	require.ErrorIs(t, errs[1], envelope.ErrAlreadyProcessed)
	require.NoError(t, errs[0])
	require.NoError(t, errs[2])
	require.Equal(t, []int{2}, sizes)

	p = b.claim(t, time.Minute, false)[0]
	others = deliveries(2)
	d := taken(p)
	d.Attempt = 1 // its attempts are not known any more
	require.NoError(t, errors.Join(together(t, route(2), others[0], d, others[1])...))
	require.ElementsMatch(t, []int{2, 1, 2}, sizes)
	require.Equal(t, []int{0, 5}, []int{b.parkedRows(t), b.effects(t)})
}

// A take-over reads the parked keys when it has the lease, so it must not get that
// between the look at the lease and the commit of a row.
func TestTakeOverWaitsForAParkThatIsUnderWay(t *testing.T) {
	t.Parallel()
	b, p := setup(t), parked("a", 1)
	p.Fence = b.acquire(t, "a", time.Minute)
	b.exec(t, `
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.3); return new; end $$;
create trigger slow after insert on messaging.inbox_parked for each row execute function slow()`)
	parking := make(chan error, 1)
	go func() { parking <- b.in.Park(context.Background(), p, time.Hour) }()
	require.Eventually(t, func() bool {
		return b.count(t, `select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`) == 1
	}, 20*time.Second, time.Millisecond)
	b.acquire(t, "a", time.Minute)
	keys, err := b.in.ParkedKeys(t.Context(), byDurable)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, keys)
	require.NoError(t, <-parking)
}

// A stream that was made anew counts from 1 again.
func TestStreamsOfOneNameAreInTheOrderOfTheirCreation(t *testing.T) {
	t.Parallel()
	b, old, anew := setup(t), parked("a", 900), parked("a", 1)
	anew.StreamCreated = old.StreamCreated.Add(time.Hour)
	require.NoError(t, b.in.Park(t.Context(), anew, 0))
	require.NoError(t, b.in.Park(t.Context(), old, 0))
	require.Equal(t, []uint64{900}, sequences(b.claim(t, time.Minute, true)))
}
