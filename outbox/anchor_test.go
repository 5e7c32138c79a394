package outbox_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// An instance that lost its lease may see the loss too, and may be wrong about
// what was published since: the term fences going back like going forward.
func TestRelayThatLostItsLeaseCannotRewind(t *testing.T) {
	t.Parallel()
	f := setupFrail(t)
	zombie := f.newRelay(t, outbox.RelayConfig{Holder: "zombie", LeaseTTL: time.Minute, ProbeInterval: 10 * time.Millisecond})
	zombie.AnchorEvery(0)
	run(t, zombie)
	counter := map[string]int{}
	f.enqueueEach(t, counter, 5)
	f.save(t)
	f.enqueueEach(t, counter, 5)
	const row = `select s.base::text || s.acked_sequence || s.rewinds || (select count(*) from messaging.outbox_anchors a where a.stream = s.stream)
		from messaging.outbox_state s where stream = 'DV_MASKIN_EVT'`
	var before, after string
	require.NoError(t, f.pool.QueryRow(t.Context(), row).Scan(&before))
	f.lose(t, func() {
		_, err := f.pool.Exec(t.Context(), "update messaging.outbox_lease set holder = 'other', term = term + 1, expires_at = clock_timestamp() + interval '1 hour'")
		require.NoError(t, err)
	})
	require.Eventually(t, func() bool { return !zombie.Leading() }, 20*time.Second, time.Millisecond, "it did not try")
	require.NoError(t, f.pool.QueryRow(t.Context(), row).Scan(&after))
	require.Equal(t, before, after, "the cursor went back without the lease")
}

// Anchors are many where a loss is likely, the last minute, and few where it is
// not: their number does not grow with what is published.
func TestAnchorsAreThinnedWithAge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.pool.Exec(t.Context(), `
insert into messaging.outbox_anchors (stream, at, acked_sequence, base, floor, next_floor)
select 'DV_MASKIN_EVT', now() - g * interval '20 seconds', 0, '1:1:', 0, 0 from generate_series(1, 3 * 60 * 24 * 5) g`)
	require.NoError(t, err)
	b.relay(t, outbox.RelayConfig{})
	b.enqueueEach(t, map[string]int{}, 3)
	var count, young, minutes, hours, days int
	require.NoError(t, b.pool.QueryRow(t.Context(), `
select count(*), count(*) filter (where at > now() - interval '70 seconds'),
       count(*) filter (where at between now() - interval '58 minutes' and now() - interval '2 minutes'),
       count(*) filter (where at between now() - interval '47 hours' and now() - interval '2 hours'),
       count(*) filter (where at < now() - interval '49 hours')
from messaging.outbox_anchors`).Scan(&count, &young, &minutes, &hours, &days))
	require.Less(t, count, 3+60+48+4+10)
	require.Positive(t, young)
	require.InDelta(t, 56, minutes, 2)
	require.InDelta(t, 45, hours, 2)
	require.InDelta(t, 3, days, 1)
}
