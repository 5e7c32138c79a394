package dlq_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

// old means letters of any age.
var old = dlq.PurgeRequest{OlderThan: 1}

func (b *bundle) purge(t *testing.T, r dlq.PurgeRequest) dlq.Purged {
	t.Helper()
	p, err := b.queue.Purge(t.Context(), r)
	require.NoError(t, err)
	return p
}

// replay replays a letter and returns where the replay is stored.
func (b *bundle) replay(t *testing.T, id string) uint64 {
	t.Helper()
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	return r.Sequence
}

// resolved makes a letter with two copies, two replays and five marks, the last
// of which says resolved.
func (b *bundle) resolved(t *testing.T) string {
	t.Helper()
	id := b.bury(t, failed(t))
	b.bury(t, b.replayFailed(t, b.replay(t, id), "again"))
	b.replay(t, id)
	require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
	return id
}

// twice makes a discarded letter whose failure was stored twice.
func (b *bundle) twice(t *testing.T) string {
	t.Helper()
	f := failed(t)
	b.bury(t, f)
	b.repeatFailure(t, f)
	id := dlq.LetterHeader(f, 0).Get(envelope.HeaderLetterID)
	_, err := b.queue.Discard(t.Context(), id, request("ola"))
	require.NoError(t, err)
	return id
}

func (b *bundle) discarded(t *testing.T) string {
	t.Helper()
	id := b.bury(t, failed(t))
	_, err := b.queue.Discard(t.Context(), id, request("ola"))
	require.NoError(t, err)
	return id
}

// stored returns how many messages are in both streams.
func (b *bundle) messages(t *testing.T) int {
	t.Helper()
	return b.letters(t) + b.count(t, "DV_PLATTFORM_DLQOPS", ">")
}

func TestClosedLettersAreRemovedAndNoOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	open, claimed, replayed := b.bury(t, failed(t)), b.bury(t, failed(t)), b.bury(t, failed(t))
	again := b.bury(t, failed(t))
	_, err := b.queue.Claim(t.Context(), claimed, request("ola"))
	require.NoError(t, err)
	b.replay(t, replayed)
	b.bury(t, b.replayFailed(t, b.replay(t, again), "again"))
	restored := b.discarded(t)
	_, err = b.queue.Restore(t.Context(), restored, request("ola"))
	require.NoError(t, err)
	require.NoError(t, b.queue.WriteMark(t.Context(), b.show(t, open), "odd", "operator:newer"))
	late := b.bury(t, failed(t))
	sequence := b.replay(t, late)
	_, err = b.queue.Discard(t.Context(), late, dlq.Request{By: "operator:ola", Reason: "gone", Again: true})
	require.NoError(t, err)
	b.bury(t, b.replayFailed(t, sequence, "not gone after all"))
	before := b.messages(t)
	resolved, discarded := b.resolved(t), b.discarded(t)

	require.Equal(t, dlq.Purged{}, b.purge(t, dlq.PurgeRequest{}), "none is a month old")
	require.Equal(t, dlq.Purged{}, b.purge(t, dlq.PurgeRequest{OlderThan: time.Hour}))
	require.Equal(t, dlq.Purged{Letters: 2, Messages: 5}, b.purge(t, dlq.PurgeRequest{OlderThan: 1, DryRun: true}))
	require.Len(t, b.list(t, dlq.Filter{State: dlq.StateAny}), 8, "a dry run removes nothing")
	require.Equal(t, dlq.Purged{Letters: 2, Messages: 5}, b.purge(t, old))
	require.Equal(t, sorted(open, claimed, replayed, again, restored, late), ids(b.list(t, dlq.Filter{State: dlq.StateAny})))
	require.Equal(t, before, b.messages(t), "nothing is left of them")
	for _, id := range []string{resolved, discarded} {
		_, err := b.queue.Show(t.Context(), id)
		require.ErrorIs(t, err, dlq.ErrNotFound)
		_, err = b.queue.Discard(t.Context(), id, request("ola"))
		require.ErrorIs(t, err, dlq.ErrNotFound)
		f, err := b.queue.Follow(t.Context(), []string{id}, nil)
		require.NoError(t, err)
		require.Equal(t, []string{id}, f.Other)
	}
	require.Equal(t, dlq.Purged{}, b.purge(t, old))
	_, err = b.queue.Purge(t.Context(), dlq.PurgeRequest{OlderThan: -1, By: "ola", Reason: strings.Repeat("x", 1025)})
	for _, field := range []string{"PurgeRequest.OlderThan", "PurgeRequest.By", "PurgeRequest.Reason"} {
		require.ErrorContains(t, err, field)
	}
}

// The marks of a letter go with it, so that the log is all that tells who purged it
// and why; and whoever comes while it goes is told.
func TestAPurgeSaysWhoAndWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.discarded(t)
	var log bytes.Buffer
	staging := &staged{b.js, nth(1, "after publish", ".dlqmark.", func() {
		_, err := b.queue.Restore(t.Context(), id, request("kari"))
		requireClosed(t, err, dlq.StateRemoved, "operator:ola")
	})}
	q, err := dlq.Open(t.Context(), staging, service, dlq.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	_, err = q.Purge(t.Context(), dlq.PurgeRequest{OlderThan: 1, By: "operator:ola", Reason: "room, DV-412"})
	require.NoError(t, err)
	require.Contains(t, log.String(), `letters=1 messages=1 kept=0 older_than=1ns by=operator:ola reason="room, DV-412"`)
}

// A purge that is killed anywhere leaves a letter that is closed or gone, never
// half of one that looks open, and the next purge finishes it.
//
// A row of docs/DELIVERY.md.
func TestAPurgeThatWasKilledLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	for _, at := range []string{
		"before|publish|1", "after|publish|1", "after|delete|1", "after|delete|2", "before|purge|1", "after|purge|1",
		"after|delete DV_PLATTFORM_DLQOPS|1", "after|publish|2", "after|delete|5", "after|purge|2",
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			testKilledPurge(t, at)
		})
	}
}

func testKilledPurge(t *testing.T, at string) {
	b, url := setupServer(t)
	closed := []string{b.twice(t), b.resolved(t), b.discarded(t)}
	open := b.bury(t, failed(t))
	killed(t, url, "purge", at)
	require.Equal(t, []string{open}, ids(b.list(t, dlq.Filter{})))
	removed := ids(b.list(t, dlq.Filter{State: dlq.StateRemoved}))
	b.purge(t, dlq.PurgeRequest{OlderThan: time.Hour})
	require.Empty(t, b.list(t, dlq.Filter{State: dlq.StateRemoved}), "what was begun is finished, however young: %v", removed)
	for _, id := range closed {
		_, err := b.queue.Restore(t.Context(), id, request("ola"))
		if err == nil {
			_, err = b.queue.Discard(t.Context(), id, request("ola"))
			require.NoError(t, err)
			continue
		}
		require.True(t, errors.Is(err, dlq.ErrNotFound) || is[*dlq.ResolvedError](err), "%v", err)
	}
	b.purge(t, old)
	require.Equal(t, []string{open}, ids(b.list(t, dlq.Filter{State: dlq.StateAny})))
	require.Equal(t, 1, b.messages(t))
}

// stage opens a queue that calls do at the n-th point of a kind.
func (b *bundle) stage(t *testing.T, n int, begin, part string, do func()) *dlq.Queue {
	t.Helper()
	q, err := dlq.Open(t.Context(), &staged{b.js, nth(n, begin, part, do)}, service, dlq.Config{Logger: quiet()})
	require.NoError(t, err)
	return q
}

// The message of a letter fails again at every moment of its removal: the new
// copy stays, and is open.
func TestALetterThatFailsWhileItIsRemovedSurvives(t *testing.T) {
	t.Parallel()
	for begin, part := range map[string]string{
		"before publish": ".dlqmark.", "after publish": ".dlqmark.", "before delete": "_DLQ", "before purge": "", "after purge": "",
	} {
		b := setup(t)
		id := b.bury(t, failed(t))
		sequence := b.replay(t, id)
		late := b.replayFailed(t, sequence, "late")
		require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
		q := b.stage(t, 1, begin, part, func() { b.bury(t, late) })
		_, err := q.Purge(t.Context(), old)
		require.NoError(t, err)
		l := b.show(t, id)
		require.Equal(t, dlq.StateOpen, l.State, begin)
		require.Equal(t, "late", l.Error)
		require.Equal(t, []string{id}, ids(b.list(t, dlq.Filter{})))
		_, err = b.queue.Replay(t.Context(), id, request("kari"))
		require.NoError(t, err, begin)
	}
}

// Whoever acts on the new failure at once must not lose his mark to the removal
// of the old ones.
func TestWhoActsOnTheNewFailureKeepsHisMarks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	late := b.replayFailed(t, b.replay(t, id), "late")
	require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
	q := b.stage(t, 1, "before purge", "", func() {
		b.bury(t, late)
		_, err := b.queue.Discard(t.Context(), id, request("kari"))
		require.NoError(t, err)
	})
	_, err := q.Purge(t.Context(), old)
	require.NoError(t, err)
	l := b.show(t, id)
	require.Equal(t, dlq.StateDiscarded, l.State)
	require.Len(t, l.Marks, 1)
	require.Equal(t, "operator:kari", l.Mark.By)
}

// Nor may a replay of the new failure go with those of the old ones.
func TestWhoReplaysTheNewFailureKeepsHisReplay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	late := b.replayFailed(t, b.replay(t, id), "late")
	require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
	// The marks are read first, the replays last.
	q := b.stage(t, 2, "before read", "_DLQOPS", func() {
		b.bury(t, late)
		b.replay(t, id)
	})
	p, err := q.Purge(t.Context(), old)
	require.NoError(t, err)
	require.Equal(t, dlq.Purged{Messages: 1, Kept: 1}, p, "the first replay is over")
	require.Equal(t, []string{id + "/r2"}, b.replayedIDs(t))
	require.Equal(t, dlq.StateReplayed, b.show(t, id).State)
}

func TestALetterThatIsRestoredMeanwhileIsKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.discarded(t)
	q := b.stage(t, 1, "before publish", ".dlqmark.", func() {
		_, err := b.queue.Restore(t.Context(), id, request("kari"))
		require.NoError(t, err)
	})
	p, err := q.Purge(t.Context(), old)
	require.NoError(t, err)
	require.Equal(t, dlq.Purged{Kept: 1}, p)
	require.Equal(t, dlq.StateOpen, b.show(t, id).State)

	// Once it is being removed it is too late.
	id = b.discarded(t)
	q = b.stage(t, 1, "after publish", ".dlqmark.", func() {
		_, err := b.queue.Restore(t.Context(), id, request("kari"))
		requireClosed(t, err, dlq.StateRemoved, "service:plattform")
	})
	p, err = q.Purge(t.Context(), old)
	require.NoError(t, err)
	require.Equal(t, dlq.Purged{Letters: 1, Messages: 1}, p)
}

func TestManyMayPurgeAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 15 {
		b.resolved(t)
		b.discarded(t)
	}
	open := b.bury(t, failed(t))
	var all sync.WaitGroup
	for range 3 {
		q := b.open(t, dlq.Config{})
		all.Go(func() {
			if _, err := q.Purge(t.Context(), old); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b.purge(t, old)
	require.Equal(t, []string{open}, ids(b.list(t, dlq.Filter{State: dlq.StateAny})))
	require.Equal(t, 1, b.messages(t))
}

// The same message may die again, long after its letter was removed: it is a new
// letter under the same id, also for a process that remembers the old one.
func TestAMessageThatDiesAgainAfterItsLetterWasRemovedIsNew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	id := b.bury(t, f)
	b.bury(t, b.replayFailed(t, b.replay(t, id), "again"))
	b.bury(t, failed(t)) // so that the last message, which tells one stream from another, stays
	other := b.open(t, dlq.Config{})
	l, err := other.Show(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, 1, l.Round)
	_, err = b.queue.Discard(t.Context(), id, request("ola"))
	require.NoError(t, err)
	b.purge(t, old)
	b.repeatFailure(t, f)

	for _, q := range []*dlq.Queue{b.queue, other} {
		l, err := q.Show(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, dlq.StateOpen, l.State)
		require.Zero(t, l.Round)
	}
	b.forgetMessageIDs(t)
	r, err := other.Replay(t.Context(), id, request("kari"))
	require.NoError(t, err)
	require.Equal(t, 1, r.Round)
}

// Replays are whole messages that stay until their letters are purged. However many
// there are, what ends them finds room: a consumer that cannot resolve a letter waits.
//
// A row of docs/DELIVERY.md.
func TestReplaysLeaveRoomForTheMarksThatEndThem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	small := topology.DeadLetterOps(service, topology.Limits{}).Config()
	small.MaxBytes = 400 << 10
	_, err := b.js.UpdateStream(t.Context(), small)
	require.NoError(t, err)
	for range 80 {
		b.bury(t, failed(t, func(f *envelope.Failure) { f.Data = bytes.Repeat([]byte("x"), 4<<10) }))
	}
	report, err := b.queue.ReplayAll(t.Context(), openOnes, swift("ola"))
	require.ErrorIs(t, err, dlq.ErrFull)
	require.Greater(t, report.Done, 40)
	left := b.list(t, dlq.Filter{State: dlq.StateOpen})
	require.Len(t, left, 80-report.Done, "who was refused has claimed nothing")
	_, err = b.queue.Replay(t.Context(), left[0].ID, dry("ola"))
	require.ErrorIs(t, err, dlq.ErrFull)

	for _, id := range report.Replayed() {
		require.NoError(t, b.queue.Resolve(t.Context(), id, "handled"))
	}
	for _, l := range left[1:] {
		_, err := b.queue.Discard(t.Context(), l.ID, request("ola"))
		require.NoError(t, err)
	}
	require.Equal(t, 79, b.purge(t, old).Letters)
	_, err = b.queue.Replay(t.Context(), left[0].ID, request("ola"))
	require.NoError(t, err)
}

// A full stream is what a purge is for: replays that are over make room for the
// marks that it needs.
func TestAPurgeMakesRoomInFullStreams(t *testing.T) {
	t.Parallel()
	b := setupWith(t, topology.Limits{MaxMsgs: 2}, dlq.Config{})
	b.resolved(t)
	full := topology.DeadLetterOps(service, topology.Limits{}).Config()
	full.MaxMsgs = int64(b.count(t, "DV_PLATTFORM_DLQOPS", ">"))
	_, err := b.js.UpdateStream(t.Context(), full)
	require.NoError(t, err)
	_, err = b.queue.DeadLetter(t.Context(), failed(t))
	require.ErrorIs(t, err, dlq.ErrFull)
	require.Equal(t, dlq.Purged{Letters: 1, Messages: 4}, b.purge(t, old))
	require.Zero(t, b.messages(t))
	id := b.bury(t, failed(t))
	_, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
}
