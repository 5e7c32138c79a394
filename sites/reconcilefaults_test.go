package sites_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/sites"
)

// stream returns a stream of the site as it is now.
func (e *end) stream(t *testing.T, name string) jetstream.Stream {
	t.Helper()
	s, err := e.conn.JetStream().Stream(t.Context(), name)
	require.NoError(t, err)
	return s
}

// configure changes the configuration of a stream of the site.
func (e *end) configure(t *testing.T, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	cfg := e.stream(t, name).CachedInfo().Config
	change(&cfg)
	_, err := e.conn.JetStream().UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
}

// What is only on its way is not missing, however slow the link is.
func TestNothingIsSentAgainThatIsOnItsWay(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, compares())
	w := b.watcher(t, compares())
	s.Latency(200 * time.Millisecond)
	ids := newIDs(300)
	for i := range ids {
		if i%3 == 0 {
			ids[i] = uuid.NewString() // not of version 7
		}
		a.store(t, ids[i])
		wait := time.NewTimer(5 * time.Millisecond)
		<-wait.C
	}
	began := time.Now()
	f := requireFlow(t, w, "compared", completeSince(began))
	require.Zero(t, f.Resent)
	require.Zero(t, f.OriginLacks)
	require.True(t, slices.Equal(ids, b.held(t, copyAtB)), "complete and in order")
}

// Copying waits for a stream that is full. So does what is sent again, or it would
// be sent again and again. A row of docs/DELIVERY.md.
func TestAFullDestinationWaitsAndLosesNothing(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	rollBack(t, s, a, b, 20)
	b.configure(t, copyAtB, func(c *jetstream.StreamConfig) { c.MaxMsgs = 25 }) // as many as it has
	anew := newIDs(10)
	a.store(t, anew...)
	a.watcher(t, compares())
	w := b.watcher(t, compares())
	f := requireFlow(t, w, "full", func(f sites.Flow) bool { return f.Missing == 10 && f.CompareErr != "" })
	require.Contains(t, f.CompareErr, copyAtB+" is full")
	require.Zero(t, f.Resent)
	require.InDelta(t, 1, f.Full, 0.01)
	require.Zero(t, a.stream(t, resentToB).CachedInfo().State.Msgs)

	began := time.Now()
	b.configure(t, copyAtB, func(c *jetstream.StreamConfig) { c.MaxMsgs = -1 })
	b.requireHeld(t, copyAtB, anew...)
	requireFlow(t, w, "complete", completeSince(began))
	b.requireOnce(t, copyAtB)
}

// Everything may be done twice: by two watchers at each site, and again by one that
// follows another that ended in the middle, as its server did. A row of
// docs/DELIVERY.md.
func TestSendingAgainMayBeAskedTwiceAndMayEndInTheMiddle(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	rollBack(t, s, a, b, 60)
	anew := newIDs(50)
	a.store(t, anew...)
	slow := compares()
	slow.ResendRate = 5 // the test may be slow to look
	began := time.Now()
	_, stop := a.stoppable(t, slow)
	first, second := b.watcher(t, compares()), b.watcher(t, compares())
	require.Eventually(t, func() bool { return len(b.held(t, copyAtB)) > 65+5 }, soon, tick)
	s.A().Stop()
	stop()
	s.A().Restart(t)
	require.Less(t, len(b.held(t, copyAtB)), 65+50, "it ended in the middle")
	a.watcher(t, compares())
	a.watcher(t, compares())
	b.requireHeld(t, copyAtB, anew...)
	for _, w := range []*sites.Watcher{first, second} {
		requireFlow(t, w, "complete", completeSince(began))
	}
	b.requireOnce(t, copyAtB)
}

func TestSendingAgainKeepsToItsRate(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	rollBack(t, s, a, b, 40)
	anew := newIDs(30)
	a.store(t, anew...)
	slow := compares()
	slow.ResendRate = 100
	a.watcher(t, slow)
	b.watcher(t, compares())
	b.requireHeld(t, copyAtB, anew...)
	copied, seqs := b.stream(t, copyAtB), []uint64{}
	for seq := copied.CachedInfo().State.FirstSeq; seq <= copied.CachedInfo().State.LastSeq; seq++ {
		if m, err := copied.GetMsg(t.Context(), seq); err == nil && slices.Contains(anew, m.Header.Get("Nats-Msg-Id")) {
			seqs = append(seqs, seq)
		}
	}
	from, err := copied.GetMsg(t.Context(), seqs[0])
	require.NoError(t, err)
	until, err := copied.GetMsg(t.Context(), seqs[len(seqs)-1])
	require.NoError(t, err)
	require.Greater(t, until.Time.Sub(from.Time), 150*time.Millisecond, "30 messages at 100 a second")
}

// What one end removed, by age or by an operator, is not missing there.
func TestWhatWasRemovedAtOneEndIsNotMissing(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	ids := append(newIDs(10), idAt(time.Now().Add(-20*time.Minute)), idAt(time.Now().Add(-2*time.Hour)), uuid.NewString())
	a.store(t, ids...)
	b.requireHeld(t, copyAtB, ids...)
	require.NoError(t, b.stream(t, copyAtB).Purge(t.Context(), jetstream.WithPurgeSequence(uint64(len(ids))))) // all but the last
	began := time.Now()
	a.watcher(t, compares())
	w := b.watcher(t, compares())
	f := requireFlow(t, w, "compared", completeSince(began))
	require.Zero(t, f.Resent)

	require.NoError(t, a.stream(t, events).Purge(t.Context()))
	last := newIDs(1)
	a.store(t, last...)
	b.requireHeld(t, copyAtB, last...)
	began = time.Now()
	f = requireFlow(t, w, "compared", completeSince(began))
	require.Zero(t, f.OriginLacks)
	require.Zero(t, f.Resent)
	require.Equal(t, []string{ids[len(ids)-1], last[0]}, b.held(t, copyAtB))
}

// A repeat at the origin that the copy drops is its last message for ever: nothing is
// on its way, and nothing is missing.
func TestRepeatsInAStreamAreNoDifference(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	a.configure(t, events, func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	ids := newIDs(5)
	a.store(t, ids...)
	b.requireHeld(t, copyAtB, ids...)
	msg := nats.NewMsg("dv.maskin.evt.server.provisioned")
	require.Eventually(t, func() bool {
		ack, err := a.conn.JetStream().PublishMsg(t.Context(), msg, jetstream.WithMsgID(ids[4]))
		return err == nil && !ack.Duplicate
	}, soon, 20*time.Millisecond)
	a.watcher(t, compares())
	w := b.watcherWith(t, compares(), func(w *sites.Watcher) { w.SetCalm(200 * time.Millisecond) })
	f := requireFlow(t, w, "compared", completeSince(time.Time{}))
	require.Zero(t, f.Resent)
	require.Zero(t, f.OriginLacks)
	require.Equal(t, ids, b.held(t, copyAtB))
}

// Where nobody answers at the origin, the flow goes on and the status says who is
// missing.
func TestAnOriginWithoutAWatcherIsToldAndBreaksNothing(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	w := b.watcher(t, compares())
	f := requireFlow(t, w, "nobody", func(f sites.Flow) bool { return f.CompareErr != "" })
	require.Contains(t, f.CompareErr, "no watcher of the stream's owner runs there")
	require.True(t, f.Compared.IsZero())
	ids := newIDs(5)
	a.store(t, ids...)
	b.requireHeld(t, copyAtB, ids...)
	a.watcher(t, compares())
	requireFlow(t, w, "complete", completeSince(time.Time{}))
}

// More windows than an answer has, and more ids in one window than a page.
func TestWhatIsTooLargeForOneAnswerComesInPages(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	rollBack(t, s, a, b, 20)
	var anew []string
	for range 3200 {
		anew = append(anew, idAt(time.Now()))
	}
	for _, id := range anew {
		require.NoError(t, publishAsync(t, a, id))
	}
	<-a.conn.JetStream().PublishAsyncComplete()
	fast := compares()
	fast.ResendRate = 100_000
	a.watcher(t, fast)
	w := b.watcher(t, compares())
	requireFlow(t, w, "complete", func(f sites.Flow) bool { return completeSince(time.Time{})(f) && f.Resent > 0 })
	require.True(t, containsAll(b.held(t, copyAtB), anew))
}

func publishAsync(t *testing.T, e *end, id string) error {
	t.Helper()
	msg := nats.NewMsg("dv.maskin.evt.server.provisioned")
	_, err := e.conn.JetStream().PublishMsgAsync(msg, jetstream.WithMsgID(id), jetstream.WithStallWait(soon))
	return err
}

// The server remembers how far the stream of what is sent again came, also where all
// that came that way is gone from the copy. A stream that was put back is moved on
// until it is beyond.
func TestAForgottenPositionOfWhatIsSentAgainIsFound(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	oldest := newIDs(1)
	a.store(t, oldest...)
	before := s.A().Snapshot(t)
	s.AwaitFlows(t)
	b.requireHeld(t, copyAtB, oldest...)
	first := newIDs(10)
	a.storeOn(t, "dv.xdr.dc2.maskin.evt.server.provisioned", resentToB, first...)
	b.requireHeld(t, copyAtB, first...)
	rest := newIDs(10)
	a.store(t, rest...)
	b.requireHeld(t, copyAtB, rest...)
	s.A().RollBack(t, before)
	s.AwaitFlows(t)
	a.configure(t, resentToB, func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond })
	for seq := range uint64(10) {
		require.NoError(t, b.stream(t, copyAtB).DeleteMsg(t.Context(), seq+2))
	}
	anew := newIDs(3)
	a.store(t, anew...)
	a.watcher(t, compares())
	b.watcherWith(t, compares(), func(w *sites.Watcher) { w.SetCalm(200 * time.Millisecond) })
	b.requireHeld(t, copyAtB, anew...)
	require.Greater(t, a.stream(t, resentToB).CachedInfo().State.LastSeq, uint64(1000))
}
