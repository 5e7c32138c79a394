package outbox_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// What an operator asks is told from the database alone, also while nothing runs.
func TestStatusTellsWhatIsHeldRetainedAndCanBeRewound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	counter := map[string]int{}
	r := b.newRelay(t, outbox.RelayConfig{Holder: "relay-1"})
	r.AnchorEvery(0)
	stop := run(t, r)
	b.enqueueEach(t, counter, 12) // key-00: 1 4 7 10, key-01: 2 5 8 11, key-02: 3 6 9 12
	s := b.status(t)
	require.EqualValues(t, 12, s.RetainedEstimate)
	require.EqualValues(t, 12, s.Anchors)
	require.WithinDuration(t, time.Now(), s.OldestAnchor, time.Minute)
	require.Zero(t, s.Parked+s.Held+s.Discarded+s.RewindRequests+s.Rewinds)
	require.Zero(t, s.RewoundAt)
	stop()

	b.exec(t, `
insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause, parked_at)
select stream, ordering_key, seq, id, subject, 'too large', now() - seq * interval '1 hour' from messaging.outbox_events where seq in (4, 5)`)
	b.exec(t, `
insert into messaging.outbox_discarded (stream, id, seq, ordering_key, subject, cause, discarded_by, reason)
select stream, id, seq, ordering_key, subject, 'too large', 'operator:ola', 'a test' from messaging.outbox_events where seq = 3`)
	b.exec(t, `insert into messaging.outbox_rewinds (stream, requested_by, reason) values ('DV_MASKIN_EVT', 'operator:ola', 'a test')`)
	b.exec(t, "update messaging.outbox_state set rewinds = 2, rewound_at = now() - interval '1 day'")
	b.exec(t, "update messaging.outbox_anchors set stream_created = null where acked_sequence < 6")
	b.enqueue(t, "key-00", 5, 6)
	s = b.status(t)
	require.EqualValues(t, 2, s.Unpublished, "a row that is held and not passed still waits")
	require.EqualValues(t, 2, s.Parked)
	require.InDelta(t, 5*time.Hour, s.OldestParkedAge, float64(time.Minute))
	require.EqualValues(t, 6, s.Held, "4 7 10 and 5 8 11 were passed")
	require.False(t, s.HeldCapped)
	require.EqualValues(t, 6, s.RetainedEstimate)
	require.EqualValues(t, 1, s.Discarded)
	require.EqualValues(t, 6, s.Anchors, "anchors of another stream lead nowhere")
	require.EqualValues(t, 1, s.RewindRequests)
	require.EqualValues(t, 2, s.Rewinds)
	require.WithinDuration(t, time.Now().Add(-24*time.Hour), s.RewoundAt, time.Minute)
	all, err := outbox.ReadStatus(t.Context(), b.pool, "")
	require.NoError(t, err)
	require.Equal(t, "relay-1", all.Leader)
	require.EqualValues(t, 1, all.Term)
	require.False(t, all.Led)
	require.Zero(t, all.Streams[1].Parked+all.Streams[1].RetainedEstimate+all.Streams[1].Anchors)
}

// Beyond what is worth counting, PostgreSQL's own figures are told.
func TestRetainedRowsAreEstimatedWhereTheyAreMany(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueueEach(t, map[string]int{}, 1)
	stop()
	b.exec(t, "alter table messaging.outbox_events set (autovacuum_enabled = off)")
	b.retained(t, 60_000)
	require.EqualValues(t, -1, b.status(t).RetainedEstimate, "two streams, and nobody knows their shares")
	require.Eventually(t, func() bool { // or they would be counted once more on top of what ANALYZE finds
		var told bool
		require.NoError(t, b.pool.QueryRow(t.Context(), "select pg_stat_get_live_tuples('messaging.outbox_events'::regclass) >= 60000").Scan(&told))
		return told
	}, 20*time.Second, 50*time.Millisecond)
	b.exec(t, "analyze messaging.outbox_events")
	require.InEpsilon(t, 45_000, b.status(t).RetainedEstimate, 0.1)
	b.exec(t, "delete from messaging.outbox_events where stream = 'DV_NETT_CMD'")
	require.Eventually(t, func() bool { // the counters are told after a second
		n := b.status(t).RetainedEstimate
		return 44_000 < n && n < 46_000
	}, 20*time.Second, 50*time.Millisecond)
}
