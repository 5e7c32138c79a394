package outbox_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/outbox"
)

// setupPublished is an outbox whose relay has published what writers committed
// in a wild order, partly in walks, with an anchor at every step, and is gone.
func setupPublished(t *testing.T) bundle {
	t.Helper()
	b := setup(t)
	w := newWriters(t, b, 4)
	long := w.openLongTransaction(t)
	w.run(t, 25)
	r := b.newRelay(t, outbox.RelayConfig{PageRows: 10})
	r.AnchorEvery(0)
	stop := run(t, r)
	w.run(t, 10)
	b.requireDrained(t)
	require.NoError(t, long.Commit(t.Context()))
	b.requireDrained(t)
	w.run(t, 5)
	b.requireDrained(t)
	stop()
	return b
}

// passed is the definition: a cursor has passed what its base sees, and in a walk
// what the target sees up to the position.
const passed = `
create function passed(x xid8, seq bigint, base pg_snapshot, target pg_snapshot, pos bigint) returns boolean language sql as $$
  select pg_visible_in_snapshot(x, base) or target is not null and seq <= pos and pg_visible_in_snapshot(x, target)
$$`

// A plan finds rows as a relay would, by floors and ranges of transactions; the
// definition looks at every row. Both agree between any two cursors that were.
func TestPlanOfARewindCountsWhatTheCursorsSay(t *testing.T) {
	t.Parallel()
	b := setupPublished(t)
	_, err := b.pool.Exec(t.Context(), passed)
	require.NoError(t, err)
	var walks, late int
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select count(*) filter (where target is not null), count(*) filter (where pg_snapshot_xmin(base) < pg_snapshot_xmax(base))
  from messaging.outbox_anchors`).Scan(&walks, &late))
	require.Positive(t, walks)
	require.Positive(t, late)
	anchors, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	require.Greater(t, len(anchors), 5)
	require.True(t, anchors[0].At.After(anchors[1].At))

	rnd := rand.New(rand.NewPCG(1, 42))
	for range 40 {
		now := rnd.IntN(len(anchors) - 1)
		from := now + 1 + rnd.IntN(len(anchors)-now-1)
		_, err := b.pool.Exec(t.Context(), `
update messaging.outbox_state s set base = a.base, floor = a.floor, next_floor = a.next_floor, target = a.target, ceiling = a.ceiling, position = a.position
  from messaging.outbox_anchors a where a.stream = s.stream and a.at = $1`, anchors[now].At)
		require.NoError(t, err)
		want := outbox.RewindPlan{Stream: events, Anchor: anchors[from].At}
		require.NoError(t, b.pool.QueryRow(t.Context(), `
select count(*), count(distinct ordering_key), coalesce(min(e.seq), 0), coalesce(max(e.seq), 0)
  from messaging.outbox_events e join messaging.outbox_state s using (stream) join messaging.outbox_anchors a using (stream)
 where a.at = $1 and passed(e.xid, e.seq, s.base, s.target, s.position) and not passed(e.xid, e.seq, a.base, a.target, a.position)`,
			anchors[from].At).Scan(&want.Rows, &want.Keys, &want.FirstSeq, &want.LastSeq))
		got, err := outbox.PlanRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Since: anchors[from].At})
		if want.Rows == 0 {
			require.ErrorIs(t, err, outbox.ErrNothingToRewind)
			continue
		}
		require.NoError(t, err)
		require.False(t, got.Oldest.IsZero() || got.Newest.IsZero() || got.Capped)
		got.Oldest, got.Newest = time.Time{}, time.Time{}
		require.Equal(t, want, got)
	}
}

// What the plan says is what the relay would find: after the cursor went back,
// exactly so much is unpublished.
func TestPlanOfARewindIsWhatIsUnpublishedAfterIt(t *testing.T) {
	t.Parallel()
	b := setupPublished(t)
	anchors, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	for _, i := range []int{0, len(anchors) / 3, 2 * len(anchors) / 3, len(anchors) - 1} {
		plan, err := outbox.PlanRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Since: anchors[i].At})
		require.NoError(t, err)
		var base string
		require.NoError(t, b.pool.QueryRow(t.Context(), "select base::text from messaging.outbox_state where stream = $1", events).Scan(&base))
		_, err = b.pool.Exec(t.Context(), `
update messaging.outbox_state s set base = a.base, floor = a.floor, target = a.target, ceiling = a.ceiling, position = a.position
  from messaging.outbox_anchors a where a.stream = s.stream and a.at = $1`, anchors[i].At)
		require.NoError(t, err)
		require.Equal(t, plan.Rows, b.status(t).Unpublished)
		_, err = b.pool.Exec(t.Context(), `
update messaging.outbox_state set base = $2::pg_snapshot, target = null, ceiling = null, position = null where stream = $1`, events, base)
		require.NoError(t, err)
	}
}

// Rather too much than too little: the newest anchor that is not later decides,
// and without one everything that is retained.
func TestRewindGoesBackToTheNewestAnchorThatIsNotLater(t *testing.T) {
	t.Parallel()
	b := setupPublished(t)
	anchors, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	at, before := anchors[len(anchors)/2].At, anchors[len(anchors)/2+1].At
	plan := func(r outbox.RewindRequest) outbox.RewindPlan {
		r.Stream = events
		p, err := outbox.PlanRewind(t.Context(), b.pool, "", r)
		require.NoError(t, err)
		return p
	}
	require.Equal(t, at, plan(outbox.RewindRequest{Since: at}).Anchor)
	require.Equal(t, at, plan(outbox.RewindRequest{Since: at.Add(time.Microsecond)}).Anchor)
	require.Equal(t, before, plan(outbox.RewindRequest{Since: at.Add(-time.Microsecond)}).Anchor)

	all := plan(outbox.RewindRequest{All: true})
	require.Zero(t, all.Anchor)
	require.Equal(t, all, plan(outbox.RewindRequest{Since: anchors[len(anchors)-1].At.Add(-time.Hour)}))
	var rows, first, keys int64
	require.NoError(t, b.pool.QueryRow(t.Context(), "select count(*), min(seq), count(distinct ordering_key) from messaging.outbox_events").Scan(&rows, &first, &keys))
	require.Equal(t, []int64{rows, first, keys}, []int64{all.Rows, all.FirstSeq, all.Keys})

	// An anchor of the stream that was there before says nothing of this one.
	_, err = b.pool.Exec(t.Context(), "update messaging.outbox_anchors set stream_created = now() where at = $1", at)
	require.NoError(t, err)
	require.Equal(t, before, plan(outbox.RewindRequest{Since: at}).Anchor)
	left, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	require.Len(t, left, len(anchors)-1)
}

// What was held when an anchor was the cursor and released since was published
// after it, yet lies before it: from there it would not come again.
func TestRewindGoesBackBehindWhatWasReleasedSince(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.limit(t, 4<<10)
	b.enqueuePadded(t, "bad", 1, tooLarge)
	b.enqueue(t, "good", 1)
	r := b.newRelay(t, outbox.RelayConfig{})
	r.AnchorEvery(0)
	stop := run(t, r)
	b.requireParked(t, "bad")
	b.requireDrained(t)
	b.enqueue(t, "good", 2)
	b.requireDrained(t)
	anchors, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	since := anchors[0].At // its cursor has passed bad 1 and good 1
	plan := func(key string) outbox.RewindPlan {
		p, err := outbox.PlanRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Key: key, Since: since})
		require.NoError(t, err)
		return p
	}
	before := plan("")
	require.Equal(t, since, before.Anchor)
	require.EqualValues(t, 1, before.Rows)

	// A key that was only published again changes nothing: it was there before.
	_, err = outbox.RequestRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Key: "good", All: true, By: ola, Reason: why})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		parked, err := outbox.ListParked(t.Context(), b.pool, "", outbox.ParkedFilter{State: outbox.ParkedReleased})
		return err == nil && len(parked) == 0
	}, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, before, plan(""))

	b.limit(t, -1)
	b.releaseKey(t, "bad")
	b.requireNothingParked(t)
	stop()
	require.Zero(t, plan("").Anchor)
	require.EqualValues(t, 3, plan("").Rows)
	require.EqualValues(t, 1, plan("bad").Rows)
	require.Equal(t, since, plan("good").Anchor, "keys that were never held are not concerned")
	left, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = b.pool.Exec(t.Context(), "insert into messaging.outbox_anchors select stream, clock_timestamp(), stream_created, acked_sequence, acked_id, base, floor, next_floor from messaging.outbox_state where stream = $1", events)
	require.NoError(t, err)
	left, err = outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	require.Len(t, left, 1, "from then on rewinds are as exact as ever")
}

// The anchor was chosen when the rewind was asked for, and a key was released
// before it is carried out: what was released would not come again from there.
func TestRewindThatWasAskedForBeforeAReleaseGoesBackBehindIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	b.limit(t, 4<<10)
	b.enqueuePadded(t, "bad", 1, tooLarge)
	b.enqueue(t, "good", 1)
	r := b.newRelay(t, outbox.RelayConfig{})
	r.AnchorEvery(0)
	run(t, r)
	b.requireParked(t, "bad")
	b.requireDrained(t)
	b.enqueue(t, "good", 2)
	b.requireDrained(t)
	anchors, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	b.limit(t, -1)
	b.releaseKey(t, "bad")
	b.requireNothingParked(t)
	require.Zero(t, b.status(t).OldestAnchor, "status counts no anchor that a rewind cannot go back to")
	require.Zero(t, b.status(t).Anchors)
	b.awaitForgotten(t)
	b.exec(t, "insert into messaging.outbox_rewinds (stream, anchor_at, requested_by, reason) values ($1, $2, $3, $4)", events, anchors[0].At, ola, why)
	b.requireStored(t, events, 2*3)
}

// What the rewind of a key publishes was published before, and the anchors from
// then say so: the next healing goes back no further than it must.
func TestRewindOfAKeyLeavesTheAnchorsOfHealing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	r := b.newRelay(t, outbox.RelayConfig{ProbeInterval: 20 * time.Millisecond})
	r.AnchorEvery(0)
	run(t, r)
	b.enqueue(t, "a", 1, 2, 3)
	b.requireDrained(t)
	b.enqueue(t, "b", 1)
	b.requireDrained(t)
	b.enqueue(t, "c", 1)
	b.requireDrained(t)
	b.awaitForgotten(t)
	_, err := outbox.RequestRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Key: "b", All: true, By: ola, Reason: why})
	require.NoError(t, err)
	b.requireStored(t, events, 6)
	b.requireNothingParked(t)
	b.awaitForgotten(t)
	s, err := b.js.Stream(t.Context(), events)
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context(), jetstream.WithPurgeSequence(4))) // so that a repeat cannot be found there
	require.NoError(t, s.DeleteMsg(t.Context(), 6))
	require.Eventually(t, func() bool { return b.status(t).Rewinds == 1 }, 20*time.Second, 5*time.Millisecond)
	b.requireDrained(t)
	require.Equal(t, []counted{{Key: "b", N: 1}, {Key: "c", N: 1}}, published(t, b.js, events))
}

func TestRewindOfAStreamIsAskedForOnce(t *testing.T) {
	t.Parallel()
	b := setupPublished(t)
	anchors, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	ask := outbox.RewindRequest{Stream: events, Since: anchors[3].At.Add(time.Microsecond), By: ola, Reason: "copy lost, DV-7"}
	asked, err := outbox.RequestRewind(t.Context(), b.pool, "", ask)
	require.NoError(t, err)
	require.Equal(t, outbox.Rewind{Stream: events, RequestedAt: asked.RequestedAt, Anchor: anchors[3].At, By: ola, Reason: "copy lost, DV-7"}, asked)
	list := func(stream string) []outbox.Rewind {
		all, err := outbox.ListRewinds(t.Context(), b.pool, "", stream)
		require.NoError(t, err)
		return all
	}
	require.Equal(t, []outbox.Rewind{asked}, list(""))
	require.Empty(t, list("DV_NETT_CMD"))

	ask.By, ask.All, ask.Since = "operator:kari", true, time.Time{}
	_, err = outbox.RequestRewind(t.Context(), b.pool, "", ask)
	e, ok := errors.AsType[*outbox.RewindPendingError](err)
	require.True(t, ok, err)
	require.Equal(t, asked, e.Rewind)
	require.ErrorContains(t, err, "operator:ola asked for a rewind")
	_, err = outbox.PlanRewind(t.Context(), b.pool, "", ask)
	_, ok = errors.AsType[*outbox.RewindPendingError](err)
	require.True(t, ok, "a plan is refused as the rewind would be: %v", err)

	_, err = b.pool.Exec(t.Context(), "update messaging.outbox_rewinds set done_at = clock_timestamp()")
	require.NoError(t, err)
	again, err := outbox.RequestRewind(t.Context(), b.pool, "", ask)
	require.NoError(t, err)
	require.Zero(t, again.Anchor)
	all := list(events)
	require.Equal(t, again, all[0])
	require.False(t, all[1].DoneAt.IsZero())
}

func TestOfTwoRewindsAtOnceOneIsTaken(t *testing.T) {
	t.Parallel()
	b := setupPublished(t)
	for _, key := range []string{"", "long"} {
		results := make([]error, 8)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() {
				_, results[i] = outbox.RequestRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Key: key, All: true, By: ola, Reason: why})
			})
		}
		wg.Wait()
		won := 0
		for _, err := range results {
			_, pending := errors.AsType[*outbox.RewindPendingError](err)
			_, parked := errors.AsType[*outbox.ParkedError](err)
			require.True(t, err == nil || key == "" && pending || key != "" && parked, err)
			if err == nil {
				won++
			}
		}
		require.Equal(t, 1, won)
	}
}

func TestRewindOfOneKeyParksItReleasedAtItsFirstRowSinceThen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{})
	r.AnchorEvery(0)
	stop := run(t, r)
	counter := map[string]int{}
	b.enqueueEach(t, counter, 9) // keys 0 to 2, three each
	stop()
	b.enqueue(t, keyName(1), 4) // not published yet
	anchors, err := outbox.ListAnchors(t.Context(), b.pool, "", events)
	require.NoError(t, err)
	type first struct {
		seq int64
		id  string
	}
	rows, err := b.pool.Query(t.Context(), "select seq, id::text from messaging.outbox_events where ordering_key = $1 order by seq", keyName(1))
	require.NoError(t, err)
	own, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (f first, err error) { return f, r.Scan(&f.seq, &f.id) })
	require.NoError(t, err)
	require.Len(t, own, 4)

	// The anchor before the fifth row of all: the second of key 1 is the first
	// of the key that it does not cover.
	ask := outbox.RewindRequest{Stream: events, Key: keyName(1), Since: anchors[9-5].At, By: ola, Reason: "DV-7"}
	plan, err := outbox.PlanRewind(t.Context(), b.pool, "", ask)
	require.NoError(t, err)
	require.EqualValues(t, []int64{2, 1, own[1].seq, own[2].seq}, []int64{plan.Rows, plan.Keys, plan.FirstSeq, plan.LastSeq})
	asked, err := outbox.RequestRewind(t.Context(), b.pool, "", ask)
	require.NoError(t, err)
	require.Equal(t, outbox.Rewind{Stream: events, Key: keyName(1), RequestedAt: asked.RequestedAt, Anchor: ask.Since, By: ola, Reason: "DV-7"}, asked)

	p := b.parked(t)
	require.Equal(t, outbox.Parked{
		Stream: events, Key: keyName(1), State: outbox.ParkedReleased, ID: own[1].id, Seq: own[1].seq, Subject: p.Subject,
		Cause: "rewind: DV-7", ParkedAt: p.ParkedAt, ReleasedAt: asked.RequestedAt, ReleasedBy: ola, Reason: "DV-7",
	}, p)
	d := b.show(t, keyName(1))
	require.EqualValues(t, 3, d.Held)
	require.Equal(t, "rewind", d.Decisions[0].Act)

	// While it is carried out, nothing else may be done about the key.
	for _, plan := range []bool{true, false} {
		var err error
		if plan {
			_, err = outbox.PlanRewind(t.Context(), b.pool, "", ask)
		} else {
			_, err = outbox.RequestRewind(t.Context(), b.pool, "", ask)
		}
		e, ok := errors.AsType[*outbox.ParkedError](err)
		require.True(t, ok, err)
		require.Equal(t, p, e.Parked)
	}
	_, err = outbox.DiscardParked(t.Context(), b.pool, "", p.ID, ola, "DV-8")
	_, ok := errors.AsType[*outbox.ParkedError](err)
	require.True(t, ok, err)
}

// What was given up stays given up, and what is held waits for its operator.
func TestRewindLeavesDiscardedAndHeldMessages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueue(t, "a", 1, 2, 3)
	b.enqueue(t, "b", 1, 2)
	b.requireDrained(t)
	stop()
	plan := func(key string) outbox.RewindPlan {
		p, err := outbox.PlanRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Key: key, All: true})
		require.NoError(t, err)
		return p
	}
	before := plan("")
	require.EqualValues(t, 5, before.Rows)
	id := b.park(t, "a", 2)
	require.EqualValues(t, 3, plan("").Rows, "the first of a, both of b")
	_, err := outbox.DiscardParked(t.Context(), b.pool, "", id, ola, why)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), "delete from messaging.outbox_parked")
	require.NoError(t, err)
	require.EqualValues(t, 4, plan("").Rows)
	require.EqualValues(t, 2, plan("a").Rows)

	require.NotEqual(t, id, b.park(t, "a", 1))
	_, err = b.pool.Exec(t.Context(), "delete from messaging.outbox_parked")
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), "delete from messaging.outbox_events where ordering_key = 'a' and seq = $1", before.FirstSeq)
	require.NoError(t, err)
	_, err = outbox.RequestRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Key: "a", All: true, By: ola, Reason: why})
	require.NoError(t, err)
	require.Equal(t, before.FirstSeq+2, b.parked(t).Seq, "the head of a rewind is never a discarded message")
}

func TestRewindWithoutAnythingPublishedIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	refused := func(r outbox.RewindRequest) {
		r.By, r.Reason = ola, why
		_, planErr := outbox.PlanRewind(t.Context(), b.pool, "", r)
		_, err := outbox.RequestRewind(t.Context(), b.pool, "", r)
		require.ErrorIs(t, planErr, outbox.ErrNothingToRewind)
		require.ErrorIs(t, err, outbox.ErrNothingToRewind)
	}
	refused(outbox.RewindRequest{Stream: events, All: true}) // no relay ever ran
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueue(t, "a", 1)
	b.requireDrained(t)
	stop()
	b.enqueue(t, "b", 1)                                                // waits
	refused(outbox.RewindRequest{Stream: "DV_NETT_CMD", All: true})     // no row
	refused(outbox.RewindRequest{Stream: events, Key: "b", All: true})  // not published yet
	refused(outbox.RewindRequest{Stream: "DV_MASKIN_EVTS", All: true})  // a typing fault
	refused(outbox.RewindRequest{Stream: events, Key: "aa", All: true}) // another
	all, err := outbox.ListRewinds(t.Context(), b.pool, "", "")
	require.NoError(t, err)
	require.Empty(t, all)
	parked, err := outbox.ListParked(t.Context(), b.pool, "", outbox.ParkedFilter{})
	require.NoError(t, err)
	require.Empty(t, parked)
}

// What is counted for somebody who waits is bounded. The reach of a plan is exact.
func TestMoreThanCanBeCountedIsSaid(t *testing.T) {
	t.Parallel()
	b := operators(t)
	const rows = 100_003
	_, err := b.pool.Exec(t.Context(), `
insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select $1, gen_random_uuid(), 'dv.maskin.evt.server.counted', 'a', '', '' from generate_series(1, $2::int)`, events, rows)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), "insert into messaging.outbox_state (stream, base) values ($1, pg_current_snapshot())", events)
	require.NoError(t, err)
	p, err := outbox.PlanRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, All: true})
	require.NoError(t, err)
	require.True(t, p.Capped)
	require.EqualValues(t, []int64{100_000, 1, 1, rows}, []int64{p.Rows, p.Keys, p.FirstSeq, p.LastSeq})
	b.park(t, "a", 2)
	d := b.show(t, "a")
	require.True(t, d.Capped)
	require.EqualValues(t, 100_000, d.Held)
}

func TestRewindReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := outbox.RequestRewind(t.Context(), nil, "No Schema", outbox.RewindRequest{})
	for _, want := range []string{"schema", "stream is empty", "by is empty", "reason is empty", "neither Since nor All"} {
		require.ErrorContains(t, err, want)
	}
	_, err = outbox.PlanRewind(t.Context(), nil, "", outbox.RewindRequest{Stream: events, Since: time.Now(), All: true})
	require.EqualError(t, err, "outbox: plan a rewind: both Since and All are given; choose one")
	_, err = outbox.ListAnchors(t.Context(), nil, "", "")
	require.ErrorContains(t, err, "stream is empty")
	_, err = outbox.ListRewinds(t.Context(), dvtest.EmptyPostgres(t), "", "")
	require.ErrorIs(t, err, outbox.ErrNotMigrated)
}
