package dlq_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

// The consumer died between storing the letter and terminating the original; by
// the time the original comes again its letter is being replayed.
func TestLateRepetitionOfTheOriginalDoesNotOpenAnOutstandingReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	id := b.bury(t, f)
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Equal(t, id, b.bury(t, f))
	require.Equal(t, dlq.StateReplayed, b.show(t, id).State)
	_, err = b.queue.Replay(t.Context(), id, request("kari"))
	requireConflict(t, err, dlq.StateReplayed, "operator:ola")
	require.Equal(t, 1, b.replays(t))
}

// The same when the server has forgotten the first writing and stores a copy.
func TestLateCopyOfTheOriginalDoesNotOpenAnOutstandingReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	b.repeat(t, 1, nil)
	require.Equal(t, 2, b.letters(t))
	require.Equal(t, dlq.StateReplayed, b.show(t, id).State)
}

// The replay has failed, and then the original comes once more, since the consumer
// died before it terminated it. That is no reason to wait for a replay that has
// ended, nor to replay what was failed before.
func TestLateRepetitionOfTheOriginalDoesNotHideAFailedReplay(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]int{"held": 10, "two passes": 1} {
		b := setup(t)
		b.queue.Hold(hold)
		f := failed(t)
		id := b.bury(t, f)
		b.bury(t, failed(t))
		r, err := b.queue.Replay(t.Context(), id, request("ola"))
		require.NoError(t, err)
		b.bury(t, b.replayFailed(t, r.Sequence, "again"))
		require.Equal(t, dlq.StateOpen, b.show(t, id).State)
		b.repeat(t, 1, nil)
		require.Equal(t, 4, b.letters(t), name)

		for _, q := range []*dlq.Queue{b.queue, b.open(t, dlq.Config{})} {
			l, err := q.Show(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, dlq.StateOpen, l.State)
			require.Equal(t, 1, l.Round)
			require.Equal(t, "again", l.Error)
			require.Len(t, l.Copies, 3, "the late one is history")
		}
		require.Equal(t, "again", b.list(t, dlq.Filter{IDs: []string{id}})[0].Error)
		r, err = b.queue.Replay(t.Context(), id, request("kari"))
		require.NoError(t, err, "without Again")
		require.Equal(t, 2, r.Round)
	}
}

// The replay failed and is a letter again, but terminating it was lost; it came
// again and was handled. The effect is there, so nothing is left to do.
func TestHandledRedeliveryOfAFailedReplayClosesTheLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	b.bury(t, b.replayFailed(t, r.Sequence, "again"))
	require.Equal(t, dlq.StateOpen, b.show(t, id).State)
	require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
	require.Equal(t, dlq.StateResolved, b.show(t, id).State)
	require.Empty(t, b.list(t, dlq.Filter{}))
	_, err = b.queue.Replay(t.Context(), id, request("kari"))
	_, ok := errors.AsType[*dlq.ResolvedError](err)
	require.True(t, ok, "%v", err)
}

// A replay is made of what the letter kept. It could pass the check that the
// original failed, for example when the contradicting header found no room.
func TestSecurityLetterIsNotReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t, func(f *envelope.Failure) {
		f.Header[envelope.HeaderTenantID] = []string{"tenant-2"}
		f.Class, f.Err = envelope.ClassSecurity, errors.New("tenant-id contradicts the envelope")
	}))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	refused, ok := errors.AsType[*dlq.SecurityError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, &dlq.SecurityError{LetterID: id, Reason: "tenant-id contradicts the envelope"}, refused)
	require.ErrorContains(t, err, "tenant-id contradicts the envelope")
	require.Zero(t, b.replays(t))
	l := b.show(t, id)
	require.Equal(t, dlq.StateOpen, l.State, "it stays visible")
	require.Empty(t, l.Marks)
}

// next receives and acknowledges one replay.
func next(tb testing.TB, c jetstream.Consumer) (messageID string) {
	tb.Helper()
	m, err := c.Next(jetstream.FetchMaxWait(10 * time.Second))
	require.NoError(tb, err)
	require.NoError(tb, m.DoubleAck(tb.Context()))
	return m.Headers().Get(envelope.HeaderMsgID)
}

// A replay durable that was lost and is created anew must not repeat every
// replay ever made. What was outstanding stays visible and can be replayed again.
//
// A row of docs/DELIVERY.md.
func TestReplayDurableCreatedAnewRepeatsNoReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pull := declaredPull(t, b.js, durable)
	handled, outstanding := b.bury(t, failed(t)), b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), handled, request("ola"))
	require.NoError(t, err)
	require.Equal(t, handled+"/r1", next(t, pull))
	require.NoError(t, b.queue.Resolve(t.Context(), handled, "handled"))
	_, err = b.queue.Replay(t.Context(), outstanding, request("ola"))
	require.NoError(t, err)

	require.NoError(t, b.js.DeleteConsumer(t.Context(), "DV_PLATTFORM_DLQOPS", durable+"__replay"))
	pull = declaredPull(t, b.js, durable)
	require.Zero(t, pull.CachedInfo().NumPending)
	require.Equal(t, []string{outstanding}, ids(b.list(t, dlq.Filter{State: dlq.StateReplayed})))
	_, err = b.queue.Replay(t.Context(), outstanding, again("kari"))
	require.NoError(t, err)
	require.Equal(t, outstanding+"/r2", next(t, pull), "and nothing came before it")
}

// A replay without a second pull is stored, and skipped by the pull that is made
// later: what was accepted would never be handled.
//
// A row of docs/DELIVERY.md.
func TestAReplayThatNobodyWouldReceiveIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, other := b.bury(t, failed(t)), b.bury(t, failed(t, func(f *envelope.Failure) { f.Durable = "plattform__audit" }))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.NoError(t, b.js.DeleteConsumer(t.Context(), "DV_PLATTFORM_DLQOPS", durable+"__replay"))
	for _, r := range []dlq.Request{dry("kari"), again("kari"), request("kari")} {
		_, err := b.queue.Replay(t.Context(), other, r)
		require.ErrorIs(t, err, dlq.ErrNoDurable)
	}
	report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: []string{id, other}}, again("kari"))
	require.NoError(t, err)
	require.Equal(t, []int{2, 0, 2, 0}, []int{report.Matched, report.Done, report.Refused, report.Failed})
	require.Equal(t, 1, b.replays(t), "that of ola")
	require.Empty(t, b.show(t, other).Marks)

	declaredPull(t, b.js, "plattform__audit")
	_, err = b.queue.Replay(t.Context(), other, request("kari"))
	require.NoError(t, err)
}
