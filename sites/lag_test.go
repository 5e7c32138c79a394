package sites_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The whole life of a partition. The server's own lag is 0 during it: that is why
// nobody may go by it. A row of docs/DELIVERY.md.
func TestALinkThatIsCutIsSeenAndTheServersOwnLagLies(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	a.publish(t, 20, "server")
	sent := time.Now()
	up := requireFlow(t, w, "it moves", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(sent) })
	require.Equal(t, copyAtB, up.Stream)
	require.Equal(t, events, up.Source)

	s.Cut()
	cut := time.Now()
	a.publish(t, 30, "server")
	down := requireFlow(t, w, "it is silent", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	require.False(t, down.Reachable)
	require.Contains(t, down.Err, "the link is down")
	require.Contains(t, w.Detail(), "events of maskin from dc1: silent for")
	later := requireFlow(t, w, "time goes by", func(f sites.Flow) bool { return f.Looked.Sub(f.Heard) > down.Looked.Sub(down.Heard) })
	require.Equal(t, down.CaughtUp, later.CaughtUp, "nothing is known of the origin since")
	require.WithinDuration(t, cut, later.CaughtUp, 2*time.Second)
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.Zero(t, stream.CachedInfo().Sources[0].Lag, "the server says that nothing is missing: it lies")
	require.EqualValues(t, 20, stream.CachedInfo().State.Msgs)

	s.Heal()
	back := requireFlow(t, w, "it moves again", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(later.Looked) })
	require.Equal(t, sites.StateMoving, back.State)
	stream, err = b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.EqualValues(t, 50, stream.CachedInfo().State.Msgs, "caught up means that all is there")
}

// The server waits 30 s for the answer to a question that was lost with the link, and
// here the very first one is. The watcher alone, without help of the test, makes it
// ask again. A row of docs/DELIVERY.md.
func TestACopyWhoseQuestionWasLostAsksAgainAsSoonAsTheLinkIsThere(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, eventsToB())
	a := newEnd(t, s.A())
	s.Cut()
	b := newEnd(t, s.B()) // its server asks into the cut
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	a.publish(t, 10, "server")
	requireFlow(t, w, "silent", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	flows, err := sites.Look(t.Context(), b.conn, s.Network(), dvtest.SiteB, fast())
	require.NoError(t, err)
	require.Equal(t, sites.StateSilent, flows[0].State, "one look is enough")
	require.Zero(t, flows[0].Heard)
	s.Heal()
	began := time.Now()
	f := requireFlow(t, w, "it moves", func(f sites.Flow) bool { return moving(f) && !f.CaughtUp.IsZero() })
	t.Logf("moves %s after the heal", time.Since(began).Round(time.Millisecond))
	require.NotZero(t, f.Resumed)
}

// A row of docs/DELIVERY.md.
func TestAFlowMovesAgainAfterABlackHoleAndAFlappingLinkWithTheWatcherAlone(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	a.publish(t, 10, "server")
	requireFlow(t, w, "it moves", moving)
	s.BlackHole()
	a.publish(t, 10, "server")
	requireFlow(t, w, "silent in the hole", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	s.Heal()
	requireAll(t, a, b, w)
	s.Flap(t, 5, 300*time.Millisecond)
	a.publish(t, 10, "server")
	requireAll(t, a, b, w)
}

// requireAll waits until w knows that the copy at b holds what a sent.
func requireAll(t *testing.T, a, b *end, w *sites.Watcher) {
	t.Helper()
	began := time.Now()
	requireFlow(t, w, "it moves again", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(began) })
	t.Logf("caught up within %s", time.Since(began).Round(time.Millisecond))
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.EqualValues(t, a.sent, stream.CachedInfo().State.Msgs)
}

// Both ask and both make the copy ask again: what they do may be done twice.
func TestTwoWatchersAtOneSiteDoNotHarmEachOther(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, eventsToB())
	a := newEnd(t, s.A())
	s.Cut()
	b := newEnd(t, s.B())
	a.watcher(t, fast())
	a.watcher(t, fast())
	one, other := b.watcher(t, fast()), b.watcher(t, fast())
	a.publish(t, 100, "server")
	requireFlow(t, one, "silent", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	requireFlow(t, other, "silent", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	s.Heal()
	requireAll(t, a, b, one)
	requireAll(t, a, b, other)
	require.NoError(t, topology.Verify(t.Context(), b.conn.JetStream(), b.set), "the stream is as declared")
}

// A row of docs/DELIVERY.md.
func TestAFullCopyIsStuckAndSaysSo(t *testing.T) {
	t.Parallel()
	flow := eventsToB()
	flow.Limits = topology.Limits{MaxMsgs: 10}
	_, a, b := ends(t, flow)
	a.watcher(t, fast())
	w := b.watcherWith(t, fast(), func(w *sites.Watcher) { w.SetPatience(200 * time.Millisecond) })
	a.publish(t, 15, "server")
	f := requireFlow(t, w, "stuck", func(f sites.Flow) bool { return f.State == sites.StateStuck })
	require.InDelta(t, 1, f.Full, 0.001)
	require.EqualValues(t, 5, f.Behind)
	require.Contains(t, f.Err, "DV_MASKIN_EVT_FROM_DC1 is full")
}

func TestAnOriginThatLostWhatItGaveIsStuckAlthoughTheServerSaysNothing(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	impostor(t, a.conn.NATS(), func() string {
		return `{"v":1,"site":"dc1","first":1,"last":7,"of_flow":7,"behind":0,"last_time":"2026-03-01T12:00:00Z"}`
	})
	w := b.watcher(t, fast())
	a.publish(t, 20, "server")
	requireFlow(t, w, "stuck", func(f sites.Flow) bool {
		return f.State == sites.StateStuck && strings.Contains(f.Err, "dc1 has lost what it gave: it ends at 7, and 20 came from there")
	})
}

// When the server begins to ask, its own count is 0, whatever is to come.
func TestACopyThatHoldsNothingYetIsBehindWhateverTheServerSays(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	impostor(t, a.conn.NATS(), func() string {
		return `{"v":1,"site":"dc1","first":1,"last":100,"of_flow":100,"behind":100,"last_time":"2026-03-01T12:00:00Z"}`
	})
	w := b.watcher(t, fast())
	f := requireFlow(t, w, "behind", func(f sites.Flow) bool { return f.State == sites.StateBehind })
	require.EqualValues(t, 100, f.Behind)
	require.Zero(t, f.CaughtUp)
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.Zero(t, stream.CachedInfo().Sources[0].Lag)
}

// Other entities are the stream's and not the flow's: the copy is complete without
// them.
func TestAFlowOfChosenEntitiesIsCompleteWithoutTheOthers(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB("rack", "server"))
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	a.publish(t, 3, "server")
	a.publish(t, 2, "rack")
	a.publish(t, 50, "switch")
	f := requireFlow(t, w, "complete", func(f sites.Flow) bool { return moving(f) && !f.CaughtUp.IsZero() })
	require.Zero(t, f.Behind)
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.EqualValues(t, 5, stream.CachedInfo().State.Msgs)
}

// In the stream of commands those of the flow stand among local ones.
func TestAFlowOfCommandsIsMeasuredAmongTheLocalOnes(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, topology.Flow{
		From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoCommands, Service: subject.Maskin, Owner: subject.Sentral,
	})
	a, b := &end{site: s.A(), conn: s.A().Connect(t)}, newEnd(t, s.B())
	a.set = s.A().Ensure(t, a.conn, topology.Set{Service: subject.Sentral})
	a.watcher(t, fast()) // of who owns the commands that wait
	w := b.watcher(t, fast())
	send := func(e *end, on string, n int) {
		for range n {
			_, err := e.conn.JetStream().Publish(t.Context(), on, nil)
			require.NoError(t, err)
		}
	}
	for _, local := range []int{3, 40, 200} {
		began := time.Now()
		send(a, "dv.xdc.dc2.maskin.cmd.resize", 4)
		send(b, "dv.maskin.cmd.resize", local)
		f := requireFlow(t, w, "complete", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(began) })
		require.Equal(t, "DV_MASKIN_CMD", f.Stream)
		require.Equal(t, "DV_MASKIN_CMD_TO_DC2", f.Source)
	}
}

// A watcher that starts finds the last message of the flow below more local ones than
// one look reads.
func TestAFlowOfCommandsIsFoundBelowManyLocalOnes(t *testing.T) {
	t.Parallel()
	flow := topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoCommands, Service: subject.Maskin}
	_, a, b := ends(t, flow)
	a.watcher(t, fast())
	for range 3 {
		_, err := a.conn.JetStream().Publish(t.Context(), "dv.xdc.dc2.maskin.cmd.resize", nil)
		require.NoError(t, err)
	}
	requireHolds(t, b, "DV_MASKIN_CMD", 3)
	for range 2200 {
		_, err := b.conn.JetStream().PublishAsync("dv.maskin.cmd.resize", nil)
		require.NoError(t, err)
	}
	requireHolds(t, b, "DV_MASKIN_CMD", 2203)
	stuck := ""
	w := b.watcherWith(t, fast(), func(w *sites.Watcher) { w.SetPatience(50 * time.Millisecond) })
	requireFlow(t, w, "complete", func(f sites.Flow) bool {
		if f.State == sites.StateStuck {
			stuck = f.Err
		}
		return moving(f) && !f.CaughtUp.IsZero()
	})
	require.Empty(t, stuck)
}

// The copy may keep what it got for a shorter time than the origin does, and a watcher
// that starts then has nothing to compare.
func TestACopyOfWhichNothingIsLeftIsNotStuck(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	a.publish(t, 5, "server")
	requireHolds(t, b, copyAtB, 5)
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context()))
	stuck := ""
	w := b.watcherWith(t, fast(), func(w *sites.Watcher) { w.SetPatience(200 * time.Millisecond) })
	requireFlow(t, w, "complete", func(f sites.Flow) bool {
		if f.State == sites.StateStuck {
			stuck = f.Err
		}
		return moving(f) && !f.CaughtUp.IsZero()
	})
	require.Empty(t, stuck)
	a.publish(t, 1, "server")
	requireFlow(t, w, "compared again", func(f sites.Flow) bool { return moving(f) && f.Behind == 0 })
}

// requireHolds waits until a stream of the site holds n messages.
func requireHolds(t *testing.T, e *end, name string, n uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := e.conn.JetStream().Stream(t.Context(), name)
		return err == nil && s.CachedInfo().State.Msgs == n
	}, soon, tick, name)
}

func TestAFlowOfTaskEventsIsMeasured(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoTasks, Service: subject.Maskin})
	declared := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.TaskEvents(subject.Maskin, topology.Limits{})}}
	at := func(site *dvtest.Site) *end {
		conn := site.Connect(t)
		return &end{site: site, conn: conn, set: site.Ensure(t, conn, declared)}
	}
	a, b := at(s.A()), at(s.B())
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	began := time.Now()
	for range 5 {
		_, err := a.conn.JetStream().Publish(t.Context(), "dv.task.evt.queued", nil)
		require.NoError(t, err)
	}
	f := requireFlow(t, w, "complete", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(began) })
	require.Equal(t, "DV_TASK_EVT_FROM_DC1", f.Stream)
	require.Equal(t, "DV_TASK_EVT", f.Source)
}

func TestASiteWithoutAWatcherIsToldFromALinkThatIsDown(t *testing.T) {
	t.Parallel()
	_, a, b := ends(t, eventsToB())
	w := b.watcher(t, fast())
	a.publish(t, 5, "server")
	f := requireFlow(t, w, "by the server's word", func(f sites.Flow) bool { return f.State == sites.StateMoving })
	require.False(t, f.Reachable)
	require.Zero(t, f.CaughtUp, "the server's word is no knowledge")
	require.Contains(t, f.Err, "dc1 is heard of, and nobody answers there about DV_MASKIN_EVT; if it stays so, run a sites.Watcher there in maskin")
	_, stop := a.stoppable(t, fast())
	requireFlow(t, w, "it answers", moving)
	stop()
	requireFlow(t, w, "it does not", func(f sites.Flow) bool { return !f.Reachable })
}
