package dlq_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

// again is request that goes on over an outstanding replay.
func again(who string) dlq.Request {
	r := request(who)
	r.Again = true
	return r
}

// dry is request that changes nothing.
func dry(who string) dlq.Request {
	r := swift(who)
	r.DryRun = true
	return r
}

func TestADiscardedLetterIsClosedAuditedAndCanBeRestored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	m, err := b.queue.Discard(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Equal(t, dlq.StateDiscarded, m.State)
	l := b.show(t, id)
	require.Equal(t, dlq.StateDiscarded, l.State)
	require.Equal(t, "operator:ola", l.Mark.By)
	require.Equal(t, "hostname fixed, DV-412", l.Mark.Reason)
	require.Empty(t, b.list(t, dlq.Filter{}))
	_, err = b.queue.Replay(t.Context(), id, request("kari"))
	requireClosed(t, err, dlq.StateDiscarded, "operator:ola")

	_, err = b.queue.Restore(t.Context(), id, request("kari"))
	require.NoError(t, err)
	l = b.show(t, id)
	require.Equal(t, dlq.StateOpen, l.State)
	require.Len(t, l.Marks, 2)
	require.Equal(t, []string{id}, ids(b.list(t, dlq.Filter{})))
	r, err := b.queue.Replay(t.Context(), id, request("kari"))
	require.NoError(t, err)
	require.Equal(t, 1, r.Round)
}

func requireClosed(t *testing.T, err error, state dlq.State, by string) {
	t.Helper()
	closed, ok := errors.AsType[*dlq.ResolvedError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, state, closed.State)
	require.Equal(t, by, closed.By)
}

// What no replay can be made of can still be closed.
func TestAnyLetterCanBeDiscarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, change := range []func(*envelope.Failure){
		failing(envelope.ClassSecurity, "tenants differ"),
		func(f *envelope.Failure) { f.Durable = "Not Ours" },
		func(f *envelope.Failure) { f.Subject = strings.Repeat("x", 5000) },
		func(f *envelope.Failure) { f.Subject = "" },
		func(f *envelope.Failure) { f.Envelope, f.Data, f.Class = nil, []byte("\xff"), envelope.ClassDecode },
	} {
		id := b.bury(t, failed(t, change))
		_, err := b.queue.Replay(t.Context(), id, dry("ola"))
		if err != nil {
			require.True(t, is[*dlq.SecurityError](err) || is[*dlq.AddressError](err), "%v", err)
		}
		_, err = b.queue.Discard(t.Context(), id, request("ola"))
		require.NoError(t, err)
		require.Equal(t, dlq.StateDiscarded, b.show(t, id).State)
	}
}

// Of two operators one discards, and the other is told who did, by the same type
// whether he came later or at the same moment.
func TestOfTwoOperatorsOneDiscards(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 10 {
		id := b.bury(t, failed(t))
		errs := make([]error, 3)
		var all sync.WaitGroup
		for i, q := range []*dlq.Queue{b.queue, b.open(t, dlq.Config{}), b.open(t, dlq.Config{})} {
			all.Go(func() {
				if i == 2 {
					_, errs[i] = q.Replay(t.Context(), id, request("per"))
					return
				}
				_, errs[i] = q.Discard(t.Context(), id, request([]string{"ola", "kari"}[i]))
			})
		}
		all.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			closed, isClosed := errors.AsType[*dlq.ResolvedError](err)
			conflict, isConflict := errors.AsType[*dlq.ConflictError](err)
			require.True(t, isClosed && closed.By != "" || isConflict && conflict.By != "", "%v", err)
		}
		require.Equal(t, 1, won, "%v", errs)
	}
}

func TestALetterThatIsBeingReplayedIsNotDiscarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	for _, r := range []dlq.Request{request("kari"), again("kari")} {
		_, err = b.queue.Discard(t.Context(), id, r)
		requireConflict(t, err, dlq.StateClaimed, "operator:ola")
	}
	// Once the claim is abandoned somebody may give the letter up all the same;
	// the owner, should he wake up, cannot publish any more.
	late := b.open(t, dlq.Config{ClaimLease: 1})
	_, err = late.Discard(t.Context(), id, request("kari"))
	requireConflict(t, err, dlq.StateClaimed, "operator:ola")
	_, err = late.Discard(t.Context(), id, again("kari"))
	require.NoError(t, err)
	require.Equal(t, dlq.StateDiscarded, b.show(t, id).State)
}

func TestAClaimThatWasDiscardedCannotPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	asleep, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.open(t, dlq.Config{ClaimLease: 1}).Discard(t.Context(), id, again("kari"))
	require.NoError(t, err)
	requireConflict(t, asleep.Deliver(t.Context()), dlq.StateDiscarded, "operator:kari")
	require.Zero(t, b.replays(t))
}

// A durable that will never come back leaves its replays outstanding for ever.
func TestAnOutstandingReplayIsDiscardedOnlyOnDemand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.queue.Discard(t.Context(), id, request("kari"))
	requireConflict(t, err, dlq.StateReplayed, "operator:ola")
	_, err = b.queue.Discard(t.Context(), id, again("kari"))
	require.NoError(t, err)
	require.Equal(t, dlq.StateDiscarded, b.show(t, id).State)

	// It was not gone after all, and failed: that is news.
	b.bury(t, b.replayFailed(t, r.Sequence, "late"))
	require.Equal(t, dlq.StateOpen, b.show(t, id).State)
	_, err = b.queue.Restore(t.Context(), id, request("kari"))
	conflict, ok := errors.AsType[*dlq.ConflictError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, &dlq.ConflictError{LetterID: id, State: dlq.StateOpen}, conflict)
	require.ErrorContains(t, err, "is open")
	_, err = b.queue.Discard(t.Context(), id, request("kari"))
	require.NoError(t, err)
	require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
	require.Equal(t, dlq.StateResolved, b.show(t, id).State, "the effect is there, whatever was decided")
}

// The number of a replay is never given twice, also not after a detour: the first
// one may still be out.
func TestARestoredLetterGoesOnCountingItsReplays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.queue.Discard(t.Context(), id, again("ola"))
	require.NoError(t, err)
	_, err = b.queue.Restore(t.Context(), id, request("ola"))
	require.NoError(t, err)
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Equal(t, id+"/r2", r.MessageID)
}

func TestOnlyDiscardedLettersAreRestored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	open, resolved := b.bury(t, failed(t)), b.bury(t, failed(t))
	require.NoError(t, b.queue.Resolve(t.Context(), resolved, ""))
	_, err := b.queue.Restore(t.Context(), open, request("ola"))
	require.True(t, is[*dlq.ConflictError](err), "%v", err)
	_, err = b.queue.Restore(t.Context(), resolved, request("ola"))
	requireClosed(t, err, dlq.StateResolved, "service:plattform")
	_, err = b.queue.Restore(t.Context(), "l"+strings.Repeat("0", 40), request("ola"))
	require.ErrorIs(t, err, dlq.ErrNotFound)
	_, err = b.queue.Discard(t.Context(), open, dlq.Request{})
	require.ErrorContains(t, err, "Request.By")
	require.Nil(t, b.show(t, open).Mark)
}

func TestAGroupIsDiscardedAndRestored(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 4)
	other := b.bury(t, failed(t, failing(envelope.ClassPoison, "another cause")))
	group := dlq.Filter{Fingerprint: b.show(t, letters[0]).Fingerprint}

	report, err := b.queue.DiscardAll(t.Context(), group, dry("ola"))
	require.NoError(t, err)
	require.Equal(t, letters, orderOf(report))
	require.Equal(t, 4, report.Done)
	require.Equal(t, dlq.StateOpen, report.Outcomes[0].State)
	require.Empty(t, b.list(t, dlq.Filter{State: dlq.StateDiscarded}))

	report, err = b.queue.DiscardAll(t.Context(), group, request("ola"))
	require.NoError(t, err)
	require.Equal(t, 4, report.Done)
	require.Equal(t, dlq.StateDiscarded, report.Outcomes[0].State)
	require.Equal(t, []string{other}, ids(b.list(t, dlq.Filter{})))
	require.Equal(t, sorted(letters...), ids(b.list(t, dlq.Filter{Batch: report.Batch})))

	_, err = b.queue.Restore(t.Context(), letters[0], dry("ola"))
	require.NoError(t, err)
	require.Equal(t, dlq.StateDiscarded, b.show(t, letters[0]).State)
	report, err = b.queue.RestoreAll(t.Context(), group, request("ola"))
	require.NoError(t, err)
	require.Equal(t, letters, orderOf(report), "without a state it means the discarded ones")
	require.Len(t, b.list(t, dlq.Filter{State: dlq.StateOpen}), 5)
}

// A message that comes late, after its letter was restored, must not put its
// bytes in the place of what was corrected, nor change what is open.
func TestLateRepetitionAfterARestoreIsHistory(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t, carrying(t, `{"hostname":""}`))
	id := b.bury(t, f)
	r, err := b.queue.Replay(t.Context(), id, editing(request("ola"), rename))
	require.NoError(t, err)
	b.bury(t, b.replayFailed(t, r.Sequence, "again"))
	_, err = b.queue.Discard(t.Context(), id, request("ola"))
	require.NoError(t, err)
	_, err = b.queue.Restore(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Equal(t, id, b.bury(t, f))
	l := b.show(t, id)
	require.Equal(t, dlq.StateOpen, l.State)
	require.Equal(t, "again", l.Error)
	require.Equal(t, foreignEnvelope(`{"hostname":"server-1"}`), string(l.Data))
	require.Len(t, b.list(t, dlq.Filter{}), 1, "and no letter of its own")
}
