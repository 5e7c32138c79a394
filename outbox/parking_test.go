package outbox_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/outbox"
)

// tooLarge is more than the streams of these tests take, and no more than Enqueue does.
var tooLarge = strings.Repeat("x", 8<<10)

// enqueuePadded commits one message whose envelope has the size of its pad.
func (b bundle) enqueuePadded(t testing.TB, key string, n int, pad string) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return b.out.Enqueue(origin(t.Context()), tx, serverCounted.New(key, counted{Key: key, N: n, Pad: pad}))
	})
	require.NoError(t, err)
}

// limit sets the largest message that the event stream takes; -1 for any.
func (b bundle) limit(t testing.TB, size int32) {
	t.Helper()
	b.reconfigure(t, func(c *jetstream.StreamConfig) { c.MaxMsgSize = size })
}

func (b bundle) reconfigure(t testing.TB, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	change(&cfg)
	_, err = b.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
}

func (b bundle) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	_, err := b.pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// parkedCause returns the cause for which a key is parked; "" if it is not.
func (b bundle) parkedCause(t testing.TB, key string) (cause string) {
	t.Helper()
	err := b.pool.QueryRow(t.Context(),
		`select coalesce(max(cause), '') from messaging.outbox_parked where ordering_key = $1 and released_at is null`, key).Scan(&cause)
	require.NoError(t, err)
	return cause
}

func (b bundle) requireParked(t testing.TB, key string) {
	t.Helper()
	require.Eventually(t, func() bool { return b.parkedCause(t, key) != "" }, 20*time.Second, 5*time.Millisecond, "key %s is not parked", key)
}

// releaseKey is what an operator does.
func (b bundle) releaseKey(t testing.TB, key string) {
	t.Helper()
	_, err := outbox.ReleaseParked(t.Context(), b.pool, "", "DV_MASKIN_EVT", key, "operator:ola", "test")
	require.NoError(t, err)
}

func (b bundle) requireNothingParked(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*) from messaging.outbox_parked`).Scan(&n))
		return n == 0
	}, 20*time.Second, 5*time.Millisecond, "keys stay parked")
}

func (b bundle) requirePublishedAll(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := outbox.ReadStatus(t.Context(), b.pool, "")
		require.NoError(t, err)
		unpublished := int64(0)
		for _, stream := range s.Streams {
			unpublished += stream.Unpublished
		}
		return unpublished == 0
	}, 20*time.Second, 5*time.Millisecond, "the cursor does not pass all rows")
}

// A message that can never be stored holds its key, and only its key; released,
// the key goes on where it stood, in order.
//
// A row of docs/DELIVERY.md.
func TestMessageThatCanNeverBeStoredParksItsKeyOnly(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]outbox.RelayConfig{
		"in one delta":    {},
		"in pages":        {PageRows: 3},
		"with two in air": {PageRows: 3, MaxPending: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.limit(t, 4<<10)
			b.enqueue(t, "bad", 1, 2)
			b.enqueuePadded(t, "bad", 3, tooLarge)
			b.enqueue(t, "bad", 4, 5, 6, 7, 8, 9)
			b.enqueue(t, "good", 1, 2, 3, 4, 5, 6, 7, 8, 9)
			stop := b.relay(t, cfg)
			b.requireParked(t, "bad")
			b.requireStored(t, "DV_MASKIN_EVT", 2+9)
			b.requirePublishedAll(t)
			require.Contains(t, b.parkedCause(t, "bad"), "10054", "the cause is not told")

			b.enqueue(t, "bad", 10) // waits behind, also for the next leader
			b.enqueue(t, "good", 10)
			b.requireStored(t, "DV_MASKIN_EVT", 2+10)
			stop()
			b.relay(t, cfg)
			b.enqueue(t, "bad", 11)
			b.enqueue(t, "good", 11)
			b.requireStored(t, "DV_MASKIN_EVT", 2+11)

			b.limit(t, -1)
			b.releaseKey(t, "bad")
			b.requireNothingParked(t)
			b.enqueue(t, "bad", 12)
			b.requireStored(t, "DV_MASKIN_EVT", 12+11)
			requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"bad": 12, "good": 11})
		})
	}
}

// Released too early, a key is parked again, and an operator sees why.
func TestReleasedKeyThatStillCannotBeStoredIsParkedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.limit(t, 4<<10)
	b.enqueuePadded(t, "bad", 1, tooLarge)
	b.enqueue(t, "bad", 2)
	b.relay(t, outbox.RelayConfig{})
	b.requireParked(t, "bad")
	b.releaseKey(t, "bad")
	b.requireParked(t, "bad")
	b.enqueue(t, "good", 1)
	b.requireStored(t, "DV_MASKIN_EVT", 1)
	b.limit(t, -1)
	b.releaseKey(t, "bad")
	b.requireNothingParked(t)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"bad": 2, "good": 1})
}

// A discarded message is never published, also when everything else is again.
func TestDiscardedMessageStaysOutOfEveryRewind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reconfigure(t, func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	b.limit(t, 4<<10)
	b.enqueue(t, "bad", 1)
	b.enqueuePadded(t, "bad", 99, tooLarge)
	b.enqueue(t, "bad", 2)
	b.enqueue(t, "good", 1)
	b.relay(t, outbox.RelayConfig{})
	b.requireParked(t, "bad")
	heads, err := outbox.ListParked(t.Context(), b.pool, "", outbox.ParkedFilter{})
	require.NoError(t, err)
	require.Len(t, heads, 1)
	_, err = outbox.DiscardParked(t.Context(), b.pool, "", heads[0].ID, "operator:ola", "test")
	require.NoError(t, err)
	b.requireNothingParked(t)
	b.requireStored(t, "DV_MASKIN_EVT", 3)
	b.limit(t, -1)

	b.purge(t)
	b.exec(t, `insert into messaging.outbox_rewinds (stream, requested_by, reason) values ('DV_MASKIN_EVT', 'operator:ola', 'test')`)
	b.requireRewound(t)
	b.enqueue(t, "good", 2)
	b.requireStored(t, "DV_MASKIN_EVT", 4)
	requireCounted(t, published(t, b.js, "DV_MASKIN_EVT"), map[string]int{"bad": 2, "good": 2})
}

// purge empties the event stream, its short duplicate window included.
func (b bundle) purge(t testing.TB) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context()))
	b.awaitForgotten(t)
}

// awaitForgotten returns when the duplicate window has forgotten what was
// published before.
func (b bundle) awaitForgotten(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	<-ctx.Done()
}

func (b bundle) requireRewound(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool {
		var open int
		require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*) from messaging.outbox_rewinds where done_at is null`).Scan(&open))
		return open == 0
	}, 20*time.Second, 5*time.Millisecond, "the rewind is not carried out")
	b.requirePublishedAll(t)
}

// An operator rewinds a stream to an anchor: what was published since is
// published again, what lies before is not.
func TestOperatorRewindsAStreamToAnAnchor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reconfigure(t, func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	r := b.newRelay(t, outbox.RelayConfig{})
	r.AnchorEvery(0)
	run(t, r)
	b.enqueue(t, "a", 1, 2)
	b.requireStored(t, "DV_MASKIN_EVT", 2)
	b.requirePublishedAll(t)
	var since time.Time
	require.NoError(t, b.pool.QueryRow(t.Context(), `select clock_timestamp()`).Scan(&since))
	b.enqueue(t, "a", 3)
	b.requireStored(t, "DV_MASKIN_EVT", 3)
	b.enqueue(t, "a", 4)
	b.requireStored(t, "DV_MASKIN_EVT", 4)
	b.requirePublishedAll(t)
	b.awaitForgotten(t)

	b.exec(t, `
insert into messaging.outbox_rewinds (stream, anchor_at, requested_by, reason)
select stream, max(at), 'operator:ola', 'test' from messaging.outbox_anchors where acked_sequence = 2 group by stream`)
	b.requireRewound(t)
	b.requireStored(t, "DV_MASKIN_EVT", 6)
	var numbers []int
	for _, c := range published(t, b.js, "DV_MASKIN_EVT") {
		numbers = append(numbers, c.N)
	}
	require.Equal(t, []int{1, 2, 3, 4, 3, 4}, numbers)
}

// A single key is published again as a released key is: from a row on, in
// order, new messages after the old ones.
func TestOneKeyIsPublishedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reconfigure(t, func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	b.relay(t, outbox.RelayConfig{PageRows: 2})
	b.enqueue(t, "a", 1, 2, 3)
	b.enqueue(t, "b", 1, 2, 3)
	b.requireStored(t, "DV_MASKIN_EVT", 6)
	b.requirePublishedAll(t)
	b.awaitForgotten(t)
	b.exec(t, `
insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause, released_at, released_by, reason)
select stream, ordering_key, seq, id, subject, 'rewind', clock_timestamp(), 'operator:ola', 'test'
from messaging.outbox_events where ordering_key = 'a' order by seq limit 1 offset 1`)
	b.requireNothingParked(t)
	b.enqueue(t, "a", 4)
	b.requireStored(t, "DV_MASKIN_EVT", 9)
	var a []int
	for _, c := range published(t, b.js, "DV_MASKIN_EVT") {
		if c.Key == "a" {
			a = append(a, c.N)
		}
	}
	require.Equal(t, []int{1, 2, 3, 2, 3, 4}, a)
}

// When hundreds of keys would be parked it is the stream that does not fit: it
// is held back, and nothing is passed over.
func TestStreamIsHeldBackInsteadOfParkingVeryManyKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.limit(t, 4<<10)
	for i := range 6 {
		b.enqueuePadded(t, keyName(i), 1, tooLarge)
	}
	r := b.newRelay(t, outbox.RelayConfig{MaxParked: 4})
	run(t, r)
	require.Eventually(t, func() bool { return r.Ready() != nil && strings.Contains(r.Ready().Error(), "can never be stored") },
		20*time.Second, 5*time.Millisecond, "Ready does not tell that the stream is held back: %v", r.Ready())
	var parked int
	require.NoError(t, b.pool.QueryRow(t.Context(), `select count(*) from messaging.outbox_parked`).Scan(&parked))
	require.Equal(t, 4, parked)
	b.limit(t, -1)
	b.requireStored(t, "DV_MASKIN_EVT", 2)
}

// Keys that are being released, or published again, are no sign of a stream that
// does not fit.
func TestReleasedKeysDoNotCountAsParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	shortenDuplicateWindow(t, b)
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueuePadded(t, keyName(0), 1, tooLarge)
	b.enqueue(t, keyName(1), 1)
	b.enqueue(t, keyName(2), 1)
	b.requireDrained(t)
	stop()
	b.limit(t, 4<<10)
	for i := range 3 {
		_, err := outbox.RequestRewind(t.Context(), b.pool, "", outbox.RewindRequest{Stream: events, Key: keyName(i), All: true, By: ola, Reason: why})
		require.NoError(t, err)
	}
	b.awaitForgotten(t)
	b.relay(t, outbox.RelayConfig{MaxParked: 1})
	b.requireParked(t, keyName(0))
	b.requireStored(t, events, 3+2)
}

// A row that others damaged is parked as well: it must not stop the stream.
func TestRowWithABrokenHeaderIsParked(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string]string{"no name": "no header", "an empty name": ": x\r\n", "two lines": "a\nb: x\r\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.enqueue(t, "bad", 1)
			b.exec(t, `update messaging.outbox_events set headers = $1`, headers)
			b.enqueue(t, "good", 1)
			b.relay(t, outbox.RelayConfig{})
			b.requireParked(t, "bad")
			b.requireStored(t, "DV_MASKIN_EVT", 1)
			require.Contains(t, b.parkedCause(t, "bad"), "header column")
		})
	}
}

// Rows of other authors may have any subject. One that no stream can have parks its
// key; above all, one that is longer than the server takes would cost the process
// its connection, again after each reconnect.
func TestRowWithAnImpossibleSubjectIsParked(t *testing.T) {
	t.Parallel()
	for name, subject := range map[string]string{
		"empty":            "",
		"space":            "dv.maskin.evt.a b",
		"empty token":      "dv.maskin..evt",
		"no first token":   ".dv.maskin.evt",
		"no last token":    "dv.maskin.evt.",
		"very long":        "dv.maskin.evt." + strings.Repeat("x", 5000),
		"more than a line": "dv.maskin.evt.x\r\nPING",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.enqueue(t, "bad", 1)
			b.exec(t, `update messaging.outbox_events set subject = $1`, subject)
			b.enqueue(t, "good", 1)
			b.relay(t, outbox.RelayConfig{})
			b.requireParked(t, "bad")
			b.requireStored(t, events, 1)
			require.Less(t, len(b.parkedCause(t, "bad")), 1000)
		})
	}
}

// A message that cannot be told by its row's id in the stream, as other authors may
// write it, is stored and is no anchor: it would look lost for ever, and the relay
// would go back again and again.
func TestMessageWithAnotherIDThanItsRowIsNoAnchor(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]string{
		"longer":       `regexp_replace(headers, '(Nats-Msg-Id: [^\r]*)', '\1-1')`,
		"twice":        `regexp_replace(headers, '(Nats-Msg-Id: [^\r]*\r\n)', '\1\1')`,
		"another name": `regexp_replace(headers, 'Nats-Msg-Id: ([^\r]*)', E'Nats-Msg-Id: x\r\nX-Nats-Msg-Id: \\1')`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.enqueue(t, "a", 1)
			b.exec(t, `update messaging.outbox_events set headers = `+change)
			r := b.newRelay(t, outbox.RelayConfig{ProbeInterval: 10 * time.Millisecond})
			run(t, r)
			b.requireDrained(t)
			b.awaitForgotten(t)
			b.enqueue(t, "b", 1)
			b.requireDrained(t)
			b.requireStored(t, events, 2)
			require.Zero(t, b.status(t).Rewinds)
			requireReady(t, r)
		})
	}
}

// A row that demands a last sequence of its stream, which only other authors write,
// is refused for good: it must not hold the keys beside it.
func TestRowThatDemandsAnotherStateOfTheStreamIsParked(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Nats-Expected-Last-Sequence: 99", "Nats-Expected-Last-Subject-Sequence: 99", "Nats-Expected-Last-Msg-Id: none"} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.enqueue(t, "bad", 1)
			b.exec(t, `update messaging.outbox_events set headers = headers || $1`, header+"\r\n")
			b.enqueue(t, "good", 1)
			b.relay(t, outbox.RelayConfig{})
			b.requireParked(t, "bad")
			b.requireStored(t, events, 1)
			require.Contains(t, b.parkedCause(t, "bad"), "wrong last")
		})
	}
}

// What a release published is published again if the broker loses it, although
// the cursor passed those rows long before.
func TestReleasedMessagesAreHealedToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.reconfigure(t, func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	b.limit(t, 4<<10)
	r := b.newRelay(t, outbox.RelayConfig{ProbeInterval: 20 * time.Millisecond})
	r.AnchorEvery(0)
	run(t, r)
	b.enqueue(t, "good", 1)
	b.enqueuePadded(t, "bad", 1, tooLarge)
	b.enqueue(t, "bad", 2)
	b.requireParked(t, "bad")
	b.enqueue(t, "good", 2)
	b.requireStored(t, "DV_MASKIN_EVT", 2)
	b.enqueue(t, "good", 3)
	b.requireStored(t, "DV_MASKIN_EVT", 3)
	b.limit(t, -1)
	b.releaseKey(t, "bad")
	b.requireNothingParked(t)
	b.requireStored(t, "DV_MASKIN_EVT", 5)
	b.awaitForgotten(t)
	s, err := b.js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	require.NoError(t, s.DeleteMsg(t.Context(), 4))
	require.NoError(t, s.DeleteMsg(t.Context(), 5))
	require.Eventually(t, func() bool {
		seen := map[int]bool{}
		for _, c := range published(t, b.js, "DV_MASKIN_EVT") {
			if c.Key == "bad" {
				seen[c.N] = true
			}
		}
		return seen[1] && seen[2]
	}, 20*time.Second, 20*time.Millisecond, "what was released is lost")
}
