package dlq_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// A replay is for one durable: everybody else has handled the original.
func TestReplayReachesItsDurableAndNobodyElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.js.CreateStream(t.Context(), topology.Events(subject.Maskin, topology.Limits{}).Config())
	require.NoError(t, err)
	main, err := b.js.CreateConsumer(t.Context(), source, jetstream.ConsumerConfig{Durable: "nett__from_maskin"})
	require.NoError(t, err)
	mine, other := declaredPull(t, b.js, durable), declaredPull(t, b.js, "plattform__audit")
	overheard := make(chan *nats.Msg, 16)
	for _, s := range []string{"dv.*.evt.>", "dv.*.cmd.>", "dv.task.evt.*"} {
		_, err := b.nc.ChanSubscribe(s, overheard)
		require.NoError(t, err)
	}
	require.NoError(t, b.nc.Flush())

	f := failed(t)
	f.Header["X-Partner"] = []string{"acme"}
	id := b.bury(t, f)
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)

	got, err := mine.Next(jetstream.FetchMaxWait(10 * time.Second))
	require.NoError(t, err)
	require.Equal(t, f.Data, got.Data())
	h := envelope.Header(got.Headers())
	require.Equal(t, id+"/r1", h.Get(envelope.HeaderMsgID))
	require.Equal(t, id, h.Get(envelope.HeaderLetterID))
	require.Equal(t, original, h.Get(envelope.HeaderOriginalSubject))
	require.Equal(t, source, h.Get(envelope.HeaderOriginalStream))
	require.Equal(t, "7", h.Get(envelope.HeaderOriginalSequence))
	require.Equal(t, "acme", h.Get("X-Partner"))
	require.NoError(t, f.Envelope.CheckHeader(h))

	require.NoError(t, b.nc.Flush())
	require.Empty(t, overheard)
	for _, c := range []jetstream.Consumer{main, other} {
		info, err := c.Info(t.Context())
		require.NoError(t, err)
		require.Zero(t, info.NumPending+info.Delivered.Consumer)
	}
	require.Equal(t, dlq.Replay{
		LetterID: id, Round: 1, Durable: durable, Subject: "dv.plattform.replay." + durable,
		MessageID: id + "/r1", Sequence: r.Sequence, State: dlq.StateReplayed,
		By: "operator:ola", Reason: "hostname fixed, DV-412", At: r.At,
	}, r)
	require.NotZero(t, r.Sequence)
}

// The marks are the audit: who, why, when, on what.
func TestReplayIsAudited(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	l := b.show(t, id)
	require.Equal(t, dlq.StateReplayed, l.State)
	require.Len(t, l.Marks, 2)
	for i, state := range []dlq.State{dlq.StateClaimed, dlq.StateReplayed} {
		m := l.Marks[i]
		require.Equal(t, state, m.State)
		require.Equal(t, 1, m.Round)
		require.Equal(t, "operator:ola", m.By)
		require.Equal(t, "hostname fixed, DV-412", m.Reason)
		require.WithinDuration(t, time.Now(), m.At, time.Minute)
		require.Equal(t, l.LetterSequence, m.LetterSequence)
	}
	require.NotEqual(t, l.Marks[0].Op, l.Marks[1].Op)
}

func TestReplayAsksWhoAndWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	for name, c := range map[string]struct {
		req   dlq.Request
		parts []string
	}{
		"nothing":    {dlq.Request{}, []string{"Request.By", "Request.Reason"}},
		"no kind":    {dlq.Request{By: "ola", Reason: "x"}, []string{"Request.By"}},
		"other kind": {dlq.Request{By: "robot:r2", Reason: "x"}, []string{"Request.By"}},
		"blank":      {dlq.Request{By: "user:1", Reason: " \n"}, []string{"Request.Reason"}},
		"long":       {dlq.Request{By: "user:1", Reason: strings.Repeat("x", 1025)}, []string{"Request.Reason"}},
	} {
		_, err := b.queue.Replay(t.Context(), id, c.req)
		require.Error(t, err, name)
		for _, part := range c.parts {
			require.ErrorContains(t, err, part, name)
		}
	}
	_, err := b.queue.Replay(t.Context(), "l"+strings.Repeat("0", 40), request("ola"))
	require.ErrorIs(t, err, dlq.ErrNotFound)
	require.Zero(t, b.replays(t))
}

func TestSecondOperatorLearnsWhoWasFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.queue.Replay(t.Context(), id, request("kari"))
	requireConflict(t, err, dlq.StateClaimed, "operator:ola")

	id = b.bury(t, failed(t))
	_, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.queue.Replay(t.Context(), id, request("kari"))
	requireConflict(t, err, dlq.StateReplayed, "operator:ola")
}

func requireConflict(t *testing.T, err error, state dlq.State, by string) {
	t.Helper()
	conflict, ok := errors.AsType[*dlq.ConflictError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, state, conflict.State)
	require.Equal(t, by, conflict.By)
	require.WithinDuration(t, time.Now(), conflict.At, time.Minute)
}

// race lets two operators replay every letter at once and returns how often each
// letter was replayed.
func race(t *testing.T, letters []string, queues ...*dlq.Queue) {
	t.Helper()
	var mu sync.Mutex
	won := map[string]int{}
	var all sync.WaitGroup
	for i, q := range queues {
		for _, id := range letters {
			all.Go(func() {
				_, err := q.Replay(t.Context(), id, request([]string{"ola", "kari"}[i]))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won[id]++
					return
				}
				conflict, ok := errors.AsType[*dlq.ConflictError](err)
				if !ok || conflict.By == "" {
					t.Errorf("letter %s: %v", id, err)
				}
			})
		}
	}
	all.Wait()
	for _, id := range letters {
		require.Equal(t, 1, won[id])
	}
}

// A row of docs/DELIVERY.md.
func TestOfTwoOperatorsExactlyOneReplays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var letters []string
	for range 20 {
		letters = append(letters, b.bury(t, failed(t)))
	}
	race(t, letters, b.queue, b.open(t, dlq.Config{}))
	require.Equal(t, 20, b.replays(t))
	require.Len(t, b.list(t, dlq.Filter{State: dlq.StateReplayed}), 20)
}

// A replicated stream refuses a mark also while another mark of the letter is on
// its way, and checks message ids before expectations: other order, same result.
func TestOfTwoOperatorsExactlyOneReplaysOnACluster(t *testing.T) {
	t.Parallel()
	cluster := dvtest.Cluster(t)
	conn := cluster.Connect(t)
	b := &bundle{js: conn.JetStream(), nc: conn.NATS()}
	createStreams(t, b.js, topology.Limits{Replicas: 3})
	b.queue = b.open(t, dlq.Config{})
	var letters []string
	for range 20 {
		letters = append(letters, b.bury(t, failed(t)))
	}
	race(t, letters, b.queue, b.open(t, dlq.Config{}))
	require.Equal(t, 20, b.replays(t))

	cluster.StepDownStream(t, "DV_PLATTFORM_DLQOPS")
	cluster.StepDownStream(t, "DV_PLATTFORM_DLQ")
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		replayed, err := collect(t.Context(), b.queue, dlq.Filter{State: dlq.StateReplayed})
		require.NoError(c, err)
		require.Len(c, replayed, 20)
	}, 30*time.Second, 50*time.Millisecond)
	for _, id := range letters {
		require.NoError(t, b.queue.Resolve(t.Context(), id, ""))
	}
	require.Empty(t, b.list(t, dlq.Filter{}))
}

// The operator's process died between claim and publish.
//
// A row of docs/DELIVERY.md.
func TestAbandonedClaimIsTakenOverInTheSameRound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Zero(t, b.replays(t))

	r, err := b.open(t, dlq.Config{ClaimLease: 1}).Replay(t.Context(), id, request("kari"))
	require.NoError(t, err)
	require.True(t, r.TookOver)
	require.False(t, r.Found)
	require.Equal(t, 1, r.Round)
	require.Equal(t, id+"/r1", r.MessageID)
	require.Equal(t, 1, b.replays(t))
	require.Equal(t, dlq.StateReplayed, b.show(t, id).State)
}

// The operator's process died between publish and mark: what it published is
// found, also long after the duplicate window.
//
// A row of docs/DELIVERY.md.
func TestPublishedReplayOfAnAbandonedClaimIsFound(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, another := b.bury(t, failed(t)), b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), another, request("ola"))
	require.NoError(t, err)
	dead, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.NoError(t, dead.Deliver(t.Context()))
	b.forgetMessageIDs(t)

	r, err := b.open(t, dlq.Config{ClaimLease: 1}).Replay(t.Context(), id, request("kari"))
	require.NoError(t, err)
	require.True(t, r.TookOver)
	require.True(t, r.Found)
	require.NotZero(t, r.Sequence)
	require.Equal(t, 2, b.replays(t))
	require.Equal(t, dlq.StateReplayed, b.show(t, id).State)
}

// forgetMessageIDs makes the server forget, as two minutes do.
func (b *bundle) forgetMessageIDs(tb testing.TB) {
	tb.Helper()
	cfg := topology.DeadLetterOps(service, topology.Limits{}).Config()
	// Twice, since the server may look at its timer before it takes the new value.
	for _, window := range []time.Duration{100 * time.Millisecond, 110 * time.Millisecond} {
		cfg.Duplicates = window
		_, err := b.js.UpdateStream(tb.Context(), cfg)
		require.NoError(tb, err)
	}
	probe := func() bool {
		m := &nats.Msg{Subject: "dv.plattform.replay.probe"}
		ack, err := b.js.PublishMsg(tb.Context(), m, jetstream.WithMsgID("probe"))
		return err == nil && !ack.Duplicate
	}
	require.True(tb, probe())
	require.Eventually(tb, probe, 20*time.Second, 20*time.Millisecond)
	s, err := b.js.Stream(tb.Context(), "DV_PLATTFORM_DLQOPS")
	require.NoError(tb, err)
	require.NoError(tb, s.Purge(tb.Context(), jetstream.WithPurgeSubject("dv.plattform.replay.probe")))
}

// Somebody slept through the loss of his claim, and beyond the duplicate window:
// only the condition on the last mark keeps his replay out.
func TestLostClaimCannotPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	asleep, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.open(t, dlq.Config{ClaimLease: 1}).Replay(t.Context(), id, request("kari"))
	require.NoError(t, err)
	b.forgetMessageIDs(t)
	requireConflict(t, asleep.Deliver(t.Context()), dlq.StateReplayed, "operator:kari")
	require.Equal(t, 1, b.replays(t))
}

// Two operators find the same abandoned claim.
func TestAbandonedClaimIsTakenOverOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var letters []string
	for range 10 {
		id := b.bury(t, failed(t))
		_, err := b.queue.Claim(t.Context(), id, request("dead"))
		require.NoError(t, err)
		letters = append(letters, id)
	}
	// Only the abandoned claims are older than the lease.
	require.Eventually(t, func() bool {
		l := b.show(t, letters[9])
		return time.Since(l.Marks[0].StoredAt) > time.Second
	}, 20*time.Second, 50*time.Millisecond)
	lease := dlq.Config{ClaimLease: time.Second}
	race(t, letters, b.open(t, lease), b.open(t, lease))
	require.Equal(t, 10, b.replays(t))
}

// The consumer may handle the replay before the operator has marked it.
func TestQuickConsumerResolvesAClaim(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	p, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.NoError(t, p.Deliver(t.Context()))
	require.NoError(t, b.queue.Resolve(t.Context(), id, ""))
	r, err := p.Conclude(t.Context())
	require.NoError(t, err)
	require.Equal(t, dlq.StateResolved, r.State)
	require.Equal(t, dlq.StateResolved, b.show(t, id).State)
}

// Nor does a quick failure confuse the operator.
func TestQuickConsumerFailsAClaim(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	p, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.NoError(t, p.Deliver(t.Context()))
	b.bury(t, b.replayFailed(t, 2, "again"))
	require.Equal(t, dlq.StateOpen, b.show(t, id).State)
	_, err = p.Conclude(t.Context())
	require.NoError(t, err)
	require.Equal(t, dlq.StateOpen, b.show(t, id).State)
	r, err := b.queue.Replay(t.Context(), id, request("kari"))
	require.NoError(t, err)
	require.Equal(t, 2, r.Round)
}

// The server answers "duplicate" and stores nothing: without this error the
// operator would wait for a replay that nobody receives.
func TestSwallowedReplayIsAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: "dv.plattform.replay.other"}, jetstream.WithMsgID(id+"/r1"))
	require.NoError(t, err)
	_, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.ErrorIs(t, err, dlq.ErrDuplicate)

	// Once the server has forgotten the id, the claim is carried out.
	b.forgetMessageIDs(t)
	r, err := b.open(t, dlq.Config{ClaimLease: 1}).Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Equal(t, 1, r.Round)
}

func TestOutstandingReplayIsRepeatedOnlyOnDemand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	again := request("ola")
	again.Again = true
	r, err := b.queue.Replay(t.Context(), id, again)
	require.NoError(t, err)
	require.Equal(t, 2, r.Round)
	require.Equal(t, 2, b.replays(t))

	// The first of the two fails late: the second is still outstanding.
	b.bury(t, b.replayFailed(t, 2, "late"))
	require.Equal(t, dlq.StateReplayed, b.show(t, id).State)
	b.bury(t, b.replayFailed(t, r.Sequence, "too"))
	require.Equal(t, dlq.StateOpen, b.show(t, id).State)
}

// The caller gave up in the middle; trying again is safe.
func TestInterruptedReplayCanBeRepeated(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	p, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, p.Deliver(ctx), context.Canceled)
	require.NoError(t, p.Deliver(t.Context()))
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = p.Conclude(ctx)
	require.ErrorContains(t, err, "was replayed but is not marked")

	r, err := b.open(t, dlq.Config{ClaimLease: 1}).Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.True(t, r.Found)
	require.Equal(t, 1, b.replays(t))
}

// A letter of a foreign durable has no replay subject; it is said before
// anything is claimed.
func TestUnreplayableLetterIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t, func(f *envelope.Failure) { f.Durable = "Not Ours" }))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.ErrorContains(t, err, "durable")
	require.Empty(t, b.show(t, id).Marks)
}

func TestReplayRoundsAreCountedFromTheLetterWhenMarksAreLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	again := b.replayFailed(t, r.Sequence, "again")
	s, err := b.js.Stream(t.Context(), "DV_PLATTFORM_DLQOPS")
	require.NoError(t, err)
	require.NoError(t, s.Purge(t.Context()))
	b.bury(t, again)
	require.Equal(t, 2, b.letters(t))
	r, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Equal(t, 2, r.Round)
}

// Whether a replay of long ago had its effect, nothing knows any more once the
// inbox has forgotten; nor does it know after a detour over discarded. So somebody
// has to look first.
func TestALetterThatWasReplayedBeforeTheHorizonIsReplayedOnDemandOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.open(t, dlq.Config{Horizon: 1})
	id, detour := b.bury(t, failed(t)), b.bury(t, failed(t))
	for _, id := range []string{id, detour} {
		_, err := b.queue.Replay(t.Context(), id, request("ola"))
		require.NoError(t, err, "the first replay")
	}
	_, err := b.queue.Discard(t.Context(), detour, again("ola"))
	require.NoError(t, err)
	_, err = b.queue.Restore(t.Context(), detour, request("ola"))
	require.NoError(t, err)
	_, err = old.Replay(t.Context(), detour, request("ola"))
	require.ErrorIs(t, err, dlq.ErrForgotten)

	_, err = old.Replay(t.Context(), id, request("ola"))
	require.True(t, is[*dlq.ConflictError](err), "%v", err)
	b.bury(t, b.replayFailed(t, 2, "no room"))
	report, err := old.ReplayAll(t.Context(), dlq.Filter{IDs: []string{id}}, dry("ola"))
	require.NoError(t, err)
	require.Equal(t, 1, report.Refused)
	require.ErrorIs(t, report.Outcomes[0].Err, dlq.ErrForgotten)
	r, err := old.Replay(t.Context(), id, again("ola"))
	require.NoError(t, err)
	require.Equal(t, 2, r.Round)
	b.bury(t, b.replayFailed(t, r.Sequence, "no room"))
	_, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err, "within the horizon of 45 days")
}

// A consumer that died between storing the letter and marking the message dead got
// it again, and its handler succeeded: the letter is open, and the effect is there.
// As long as the inbox remembers, a replay is absorbed; after that somebody has to
// look first, also at the first replay and at a claim that nobody carried out.
func TestALetterOfAFailureBeforeTheHorizonIsReplayedOnDemandOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.open(t, dlq.Config{Horizon: 1, ClaimLease: 1})
	id, claimed := b.bury(t, failed(t)), b.bury(t, failed(t))
	_, err := b.queue.Claim(t.Context(), claimed, request("kari"))
	require.NoError(t, err)
	for _, id := range []string{id, claimed} {
		for _, r := range []dlq.Request{dry("ola"), request("ola")} {
			_, err = old.Replay(t.Context(), id, r)
			require.ErrorIs(t, err, dlq.ErrForgotten)
		}
		r, err := old.Replay(t.Context(), id, again("ola"))
		require.NoError(t, err)
		require.Equal(t, 1, r.Round)
	}
	require.Equal(t, 2, b.replays(t))
}

// What failed or was decided since does not make a replay of long ago a young one.
func TestTheHorizonIsOfTheFirstReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const horizon = 500 * time.Millisecond
	q := b.open(t, dlq.Config{Horizon: horizon})
	id := b.bury(t, failed(t))
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	first := b.stored(t, "DV_PLATTFORM_DLQOPS", r.Sequence).Time
	require.Eventually(t, func() bool { return time.Since(first) > horizon }, 20*time.Second, 20*time.Millisecond)
	b.bury(t, b.replayFailed(t, r.Sequence, "no room"))
	_, err = q.Replay(t.Context(), id, dry("ola"))
	require.ErrorIs(t, err, dlq.ErrForgotten, "although the failure is young")
	_, err = q.Discard(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = q.Restore(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = q.Replay(t.Context(), id, dry("ola"))
	require.ErrorIs(t, err, dlq.ErrForgotten, "although the decision is young")
}
