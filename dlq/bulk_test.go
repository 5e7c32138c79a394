package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// swift is request without the rate that is good for services.
func swift(who string) dlq.Request {
	r := request(who)
	r.Rate = 1e6
	return r
}

// openOnes means every open letter.
var openOnes = dlq.Filter{State: dlq.StateOpen}

// all buries n letters and returns their ids in the order of failing.
func (b *bundle) all(tb testing.TB, n int) []string {
	tb.Helper()
	var letters []string
	for range n {
		letters = append(letters, b.bury(tb, failed(tb)))
	}
	return letters
}

// orderOf returns the letters of a report in the order of acting.
func orderOf(r dlq.Report) []string {
	var letters []string
	for _, o := range r.Outcomes {
		letters = append(letters, o.LetterID)
	}
	return letters
}

// replayedIDs returns the message ids of all stored replays, in order.
func (b *bundle) replayedIDs(tb testing.TB) []string {
	tb.Helper()
	s, err := b.js.Stream(tb.Context(), "DV_PLATTFORM_DLQOPS")
	require.NoError(tb, err)
	var all []string
	for next := uint64(1); ; {
		raw, err := s.GetMsg(tb.Context(), next, jetstream.WithGetMsgSubject("dv.plattform.replay.>"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all
		}
		require.NoError(tb, err)
		all = append(all, raw.Header.Get(envelope.HeaderMsgID))
		next = raw.Sequence + 1
	}
}

func TestAGroupIsReplayedAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 5)
	other := b.bury(t, failed(t, failing(envelope.ClassPoison, "another cause")))
	groups, err := b.queue.Groups(t.Context(), dlq.Filter{})
	require.NoError(t, err)

	var seen []int
	r := swift("ola")
	r.Progress = func(p dlq.Report) { seen = append(seen, len(p.Outcomes)) }
	report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{Fingerprint: groups[0].Fingerprint}, r)
	require.NoError(t, err)
	require.Equal(t, letters, orderOf(report))
	require.Equal(t, letters, report.Replayed())
	require.Equal(t, []int{1, 2, 3, 4, 5}, seen)
	require.Equal(t, []int{5, 5, 0, 0}, []int{report.Matched, report.Done, report.Refused, report.Failed})
	for i, id := range b.replayedIDs(t) {
		require.Equal(t, letters[i]+"/r1", id)
		require.Equal(t, id, report.Outcomes[i].Replay.MessageID)
		require.Equal(t, dlq.StateReplayed, report.Outcomes[i].State)
	}
	require.Equal(t, dlq.StateOpen, b.show(t, other).State)
}

// about is a failure of the message that has this sequence in its stream.
func about(sequence uint64) func(*envelope.Failure) {
	return func(f *envelope.Failure) { f.Sequence = sequence }
}

// The letters of one ordering key are replayed in its order, in whatever order they
// failed: the first one may have been replayed by itself and have failed again.
func TestLettersAreReplayedInTheOrderOfTheirOriginals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, second := b.bury(t, failed(t, about(1))), b.bury(t, failed(t, about(2)))
	fourth, third := b.bury(t, failed(t, about(10))), b.bury(t, failed(t, about(9)))
	b.bury(t, b.replayFailed(t, b.replay(t, first), "too early"))
	report, err := b.queue.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.NoError(t, err)
	require.Equal(t, []string{first, second, third, fourth}, orderOf(report))
	require.Equal(t, []string{first + "/r1", first + "/r2", second + "/r1", third + "/r1", fourth + "/r1"}, b.replayedIDs(t))
}

// Between the choice of many letters and a letter's turn somebody corrected it, and
// failed again: what is replayed then is what he corrected, not the older copy.
func TestALetterThatFailedSinceItWasChosenIsReplayedAsItIsNow(t *testing.T) {
	t.Parallel()
	for _, r := range []dlq.Request{swift("ola"), again("ola")} {
		b := setup(t)
		first, id := b.bury(t, failed(t)), b.bury(t, failed(t))
		r.Rate = 1e6
		r.Progress = func(p dlq.Report) {
			if len(p.Outcomes) > 1 {
				return
			}
			corrected, err := b.queue.Replay(t.Context(), id, editing(request("kari"), dlq.ReplaceData([]byte(`{"server_id":"corrected"}`))))
			require.NoError(t, err)
			b.bury(t, b.replayFailed(t, corrected.Sequence, "again"))
		}
		report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: []string{first, id}}, r)
		require.NoError(t, err)
		require.Equal(t, 2, report.Done)
		done := report.Outcomes[1].Replay
		require.Equal(t, id+"/r2", done.MessageID)
		require.Contains(t, string(b.stored(t, "DV_PLATTFORM_DLQOPS", done.Sequence).Data), `{"server_id":"corrected"}`)
	}
}

// What became of a batch is to be seen afterwards, by whoever asks: also what its
// durable resolved, and what failed again.
func TestABatchIsFoundAgainWhateverBecameOfIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 4)
	report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: letters[:3]}, swift("ola"))
	require.NoError(t, err)
	require.NotEmpty(t, report.Batch)
	require.NoError(t, b.queue.Resolve(t.Context(), letters[0], "handled"))
	b.bury(t, b.replayFailed(t, report.Outcomes[1].Replay.Sequence, "again"))

	states := map[string]dlq.State{}
	for _, l := range b.list(t, dlq.Filter{Batch: report.Batch}) {
		states[l.ID] = l.State
	}
	require.Equal(t, map[string]dlq.State{
		letters[0]: dlq.StateResolved, letters[1]: dlq.StateOpen, letters[2]: dlq.StateReplayed,
	}, states)
	second, err := b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: letters[1:2]}, swift("kari"))
	require.NoError(t, err)
	require.Len(t, b.list(t, dlq.Filter{Batch: report.Batch}), 2, "somebody acted since")
	require.Len(t, b.list(t, dlq.Filter{Batch: second.Batch}), 1)
}

// One letter that cannot be replayed keeps nobody from the others.
func TestRefusedLettersAreNamedAndTheOthersAreReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := map[string]string{
		"fine":     b.bury(t, failed(t)),
		"security": b.bury(t, failed(t, failing(envelope.ClassSecurity, "tenants differ"))),
		"durable":  b.bury(t, failed(t, func(f *envelope.Failure) { f.Durable = "Not Ours" })),
		"subject":  b.bury(t, failed(t, func(f *envelope.Failure) { f.Subject = strings.Repeat("x", 5000) })),
		"replayed": b.bury(t, failed(t)),
		"claimed":  b.bury(t, failed(t)),
		"resolved": b.bury(t, failed(t)),
		"last":     b.bury(t, failed(t)),
		"missing":  "l" + strings.Repeat("0", 40),
	}
	_, err := b.queue.Replay(t.Context(), letters["replayed"], request("kari"))
	require.NoError(t, err)
	_, err = b.queue.Claim(t.Context(), letters["claimed"], request("kari"))
	require.NoError(t, err)
	require.NoError(t, b.queue.Resolve(t.Context(), letters["resolved"], ""))
	var all []string
	for _, id := range letters {
		all = append(all, id)
	}
	want := map[string]func(error) bool{
		"security": is[*dlq.SecurityError], "durable": is[*dlq.AddressError], "subject": is[*dlq.AddressError],
		"replayed": is[*dlq.ConflictError], "claimed": is[*dlq.ConflictError], "resolved": is[*dlq.ResolvedError],
		"missing": func(err error) bool { return errors.Is(err, dlq.ErrNotFound) },
	}
	for _, dry := range []bool{true, false} {
		r := swift("ola")
		r.DryRun = dry
		report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: all}, r)
		require.NoError(t, err)
		require.Equal(t, []int{9, 2, 7, 0}, []int{report.Matched, report.Done, report.Refused, report.Failed})
		for name, id := range letters {
			for _, o := range report.Outcomes {
				if o.LetterID != id {
					continue
				}
				require.Equal(t, want[name] != nil, o.Refused(), name)
				require.True(t, want[name] == nil && o.Err == nil || want[name](o.Err), "%s: %v", name, o.Err)
			}
		}
		if dry {
			require.Equal(t, 1, b.replays(t), "that of kari")
			require.Empty(t, report.Batch)
			require.Empty(t, report.Replayed())
			require.Empty(t, b.show(t, letters["fine"]).Marks)
			require.Equal(t, dlq.StateOpen, report.Outcomes[0].State)
		}
	}
	require.Equal(t, 3, b.replays(t))
	require.Empty(t, b.show(t, letters["subject"]).Marks)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// A dry run of one letter makes the checks of the real one.
func TestADryRunOfOneReplayChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	dry := request("ola")
	dry.DryRun = true
	r, err := b.queue.Replay(t.Context(), id, dry)
	require.NoError(t, err)
	require.Equal(t, dlq.Replay{
		LetterID: id, Round: 1, Durable: durable, Subject: "dv.plattform.replay." + durable,
		State: dlq.StateOpen, By: "operator:ola", Reason: "hostname fixed, DV-412",
	}, r)
	require.Empty(t, b.show(t, id).Marks)
	_, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.queue.Replay(t.Context(), id, dry)
	requireConflict(t, err, dlq.StateReplayed, "operator:ola")
}

// A filter that means more than was expected is asked about first.
func TestMoreThanTheMaximumIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.all(t, 3)
	r := swift("ola")
	r.Max = 2
	for _, dry := range []bool{true, false} {
		r.DryRun = dry
		report, err := b.queue.ReplayAll(t.Context(), openOnes, r)
		tooMany, ok := errors.AsType[*dlq.TooManyError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, &dlq.TooManyError{Matched: 3, Max: 2}, tooMany)
		require.Equal(t, 3, report.Matched)
		require.Empty(t, report.Outcomes)
	}
	require.Zero(t, b.replays(t))
	r.Max = 3
	_, err := b.queue.ReplayAll(t.Context(), openOnes, r)
	require.NoError(t, err)
	require.Equal(t, 3, b.replays(t))
}

func TestActsOnManyAskWhoWhyAndWhich(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.all(t, 1)
	acts := map[string]func(context.Context, dlq.Filter, dlq.Request) (dlq.Report, error){
		"replay": b.queue.ReplayAll, "discard": b.queue.DiscardAll, "restore": b.queue.RestoreAll,
	}
	for name, act := range acts {
		_, err := act(t.Context(), openOnes, dlq.Request{Max: -1, Rate: -1, Edit: &dlq.Edit{}})
		for _, part := range []string{"Request.By", "Request.Reason", "Request.Max", "Request.Rate"} {
			require.ErrorContains(t, err, part, name)
		}
		require.Equal(t, name != "replay", strings.Contains(err.Error(), "Request.Edit"), name)
		_, err = act(t.Context(), dlq.Filter{}, request("ola"))
		require.ErrorContains(t, err, "Filter: is empty", name)
		_, err = act(t.Context(), dlq.Filter{State: "opne"}, request("ola"))
		require.ErrorContains(t, err, "Filter.State", name)
	}
	require.Empty(t, b.list(t, dlq.Filter{})[0].Mark)
}

// A repaired service must not be run over by what it failed to handle. The times
// are the server's, of the stored replays.
func TestReplaysAreSpreadOverTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.all(t, 6)
	began := time.Now()
	r := request("ola")
	r.Rate = 20
	report, err := b.queue.ReplayAll(t.Context(), openOnes, r)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(began), 250*time.Millisecond, "five pauses")
	for i := 1; i < len(report.Outcomes); i++ {
		at := func(i int) time.Time {
			return b.stored(t, "DV_PLATTFORM_DLQOPS", report.Outcomes[i].Replay.Sequence).Time
		}
		require.Greater(t, at(i).Sub(at(i-1)), time.Millisecond)
	}
}

// Refused letters cost no time: whoever goes on after a crash passes over what is
// out already.
func TestRefusedLettersAreNotPaced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.all(t, 20)
	_, err := b.queue.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.NoError(t, err)
	slow := request("kari")
	slow.Rate = 0.001
	report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{Durable: durable}, slow)
	require.NoError(t, err)
	require.Equal(t, 20, report.Refused)
}

func TestTheEndOfAContextEndsABatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.all(t, 5)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := swift("ola")
	r.Rate = 0.001
	r.Progress = func(dlq.Report) { cancel() }
	report, err := b.queue.ReplayAll(ctx, openOnes, r)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "stopped after 1 of 5 letters")
	require.Equal(t, []int{5, 1, 0, 0}, []int{report.Matched, report.Done, report.Refused, report.Failed})
	require.Equal(t, 1, b.replays(t))
}

// One letter whose publish fails must not block the rest; a broker that does not
// answer is not asked for every letter.
func TestFailuresOfOneLetterGoOnAndThoseOfTheBrokerStop(t *testing.T) {
	t.Parallel()
	lost := []fault{lostMessage, lostMessage, lostMessage, lostMessage}
	b, f, q := setupFaulty(t, ".replay.", lost...)
	letters := b.all(t, 4)
	report, err := q.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.NoError(t, err)
	require.Equal(t, []int{4, 3, 0, 1}, []int{report.Matched, report.Done, report.Refused, report.Failed})
	require.ErrorIs(t, report.Outcomes[0].Err, context.DeadlineExceeded)
	require.Equal(t, dlq.StateClaimed, report.Outcomes[0].State)
	require.Equal(t, letters[1:], report.Replayed())

	f.mu.Lock()
	for range 20 {
		f.faults[".dlqmark."] = append(f.faults[".dlqmark."], lostMessage)
	}
	f.mu.Unlock()
	b.all(t, 5)
	report, err = q.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "stopped after 3 of 5 letters")
	require.Equal(t, 3, report.Failed)
}

// A full stream refuses each letter alike; the first one says so.
func TestAFullStreamEndsABatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.all(t, 5)
	full := topology.DeadLetterOps(service, topology.Limits{}).Config()
	full.MaxMsgs = 4 // one replay and its marks
	_, err := b.js.UpdateStream(t.Context(), full)
	require.NoError(t, err)
	report, err := b.queue.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.ErrorIs(t, err, dlq.ErrFull)
	require.ErrorContains(t, err, "stopped after 2 of 5 letters")
	require.Equal(t, []int{5, 1, 0, 1}, []int{report.Matched, report.Done, report.Refused, report.Failed})

	full.MaxMsgs = -1
	_, err = b.js.UpdateStream(t.Context(), full)
	require.NoError(t, err)
	report, err = b.open(t, dlq.Config{ClaimLease: 1}).ReplayAll(t.Context(), dlq.Filter{Durable: durable}, swift("ola"))
	require.NoError(t, err)
	require.Equal(t, []int{5, 4, 1, 0}, []int{report.Matched, report.Done, report.Refused, report.Failed})
	require.Len(t, b.replayedIDs(t), 5)
}

// Of two operators who replay the same letters at once, each replays some, and
// each letter is replayed once.
func TestTwoOperatorsReplayTheSameBatchOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 60)
	reports := make([]dlq.Report, 2)
	var both sync.WaitGroup
	for i, q := range []*dlq.Queue{b.queue, b.open(t, dlq.Config{})} {
		both.Go(func() {
			var err error
			reports[i], err = q.ReplayAll(t.Context(), dlq.Filter{IDs: letters}, swift([]string{"ola", "kari"}[i]))
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	require.Equal(t, 60, reports[0].Done+reports[1].Done)
	require.Equal(t, 60, reports[0].Refused+reports[1].Refused)
	for _, r := range reports {
		for _, o := range r.Outcomes {
			require.True(t, o.Err == nil || is[*dlq.ConflictError](o.Err), "%v", o.Err)
		}
	}
	require.Len(t, b.replayedIDs(t), 60)
	require.Equal(t, sorted(letters...), ids(b.list(t, dlq.Filter{State: dlq.StateReplayed})))
}

// Whoever handled the original hears nothing of a replay: neither a plain
// subscriber of its subject, nor a stream or consumer of anybody else. The
// replay's subject is the durable's own.
//
// A row of docs/DELIVERY.md.
func TestForeignClientsSeeNoReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 3)
	pulls := map[string]jetstream.Consumer{}
	for _, s := range subject.Services() {
		for _, stream := range []topology.Stream{topology.Events(s, topology.Limits{}), topology.Commands(s, topology.Limits{})} {
			_, err := b.js.CreateStream(t.Context(), stream.Config())
			require.NoError(t, err)
			c, err := b.js.CreateConsumer(t.Context(), stream.Name, jetstream.ConsumerConfig{Durable: "foreign"})
			require.NoError(t, err)
			pulls[stream.Name] = c
		}
	}
	overheard := make(chan *nats.Msg, 64)
	for _, s := range []string{original, "dv.*.evt.>", "dv.*.cmd.>", "dv.task.>", "dv.rpc.>", "dv.*.dlq.>"} {
		_, err := b.nc.ChanSubscribe(s, overheard)
		require.NoError(t, err)
	}
	everything := make(chan *nats.Msg, 64)
	_, err := b.nc.ChanSubscribe("dv.>", everything)
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())

	_, err = b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: letters}, swift("ola"))
	require.NoError(t, err)
	require.NoError(t, b.nc.Flush())
	require.Empty(t, overheard)
	for name, c := range pulls {
		info, err := c.Info(t.Context())
		require.NoError(t, err)
		require.Zero(t, info.NumPending+info.Delivered.Consumer, name)
	}
	own := map[string]int{}
	for len(everything) > 0 {
		m := <-everything
		own[strings.Split(m.Subject, ".")[2]]++
		if strings.HasPrefix(m.Subject, "dv.plattform.replay.") {
			require.Equal(t, "dv.plattform.replay."+durable, m.Subject)
		}
	}
	require.Equal(t, map[string]int{"replay": 3, "dlqmark": 6}, own, "whoever listens to everything sees where it goes")
}

func BenchmarkReplayAll(b *testing.B) {
	s := setup(b)
	s.fill(b, b.N)
	r := swift("ola")
	r.Max = b.N
	b.ResetTimer()
	report, err := s.queue.ReplayAll(b.Context(), openOnes, r)
	require.NoError(b, err)
	require.Equal(b, b.N, report.Done, fmt.Sprint(report.Refused))
}

// An abandoned claim is meant by "open", so that an interrupted call is finished by
// doing it again; somebody's fresh claim is not.
func TestOpenLettersIncludeAbandonedClaimsWhenTheyAreReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Claim(t.Context(), id, request("kari"))
	require.NoError(t, err)
	report, err := b.queue.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.NoError(t, err)
	require.Zero(t, report.Matched)
	hasty := b.open(t, dlq.Config{ClaimLease: 1})
	report, err = hasty.DiscardAll(t.Context(), openOnes, swift("ola"))
	require.NoError(t, err)
	require.Zero(t, report.Matched)
	report, err = hasty.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.NoError(t, err)
	require.Equal(t, 1, report.Done)
	require.True(t, report.Outcomes[0].Replay.TookOver)
}
