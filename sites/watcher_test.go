package sites_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// A flow is watched by who owns the stream that it ends in, once.
func TestAWatcherWatchesTheFlowsThatEndInStreamsOfItsService(t *testing.T) {
	t.Parallel()
	conn := dvtest.NATS(t)
	n := topology.Network{
		Sites: []topology.Site{{Name: "osl1", Domain: "osl1", Accepts: []string{"x:1"}}, {Name: "trd1", Domain: "trd1"}},
		Flows: []topology.Flow{
			{From: "osl1", To: "trd1", Cargo: topology.CargoEvents, Service: subject.Maskin},
			{From: "osl1", To: "trd1", Cargo: topology.CargoEvents, Service: subject.Nett, Owner: subject.Maskin},
			{From: "trd1", To: "osl1", Cargo: topology.CargoEvents, Service: subject.Maskin, Owner: subject.Nett},
			{From: "osl1", To: "trd1", Cargo: topology.CargoCommands, Service: subject.Maskin, Owner: subject.Sentral},
		},
	}
	for at, want := range map[string]map[subject.Service][]string{
		"trd1": {
			subject.Maskin:  {"DV_MASKIN_EVT_FROM_OSL1", "DV_NETT_EVT_FROM_OSL1", "DV_MASKIN_CMD"},
			subject.Nett:    {},
			subject.Sentral: {},
		},
		"osl1": {subject.Maskin: {}, subject.Nett: {"DV_MASKIN_EVT_FROM_TRD1"}},
	} {
		for service, streams := range want {
			set := n.At(at, topology.Set{Service: service, Streams: []topology.Stream{topology.Commands(service, topology.Limits{})}})
			w, err := sites.New(conn, set, sites.Config{})
			require.NoError(t, err)
			got := []string{}
			for _, f := range w.Flows() {
				require.Equal(t, sites.StateUnknown, f.State)
				got = append(got, f.Stream)
			}
			require.Equal(t, streams, got, "%s at %s", service, at)
		}
	}
}

func TestAPlatformOfOneSiteHasNothingToWatch(t *testing.T) {
	t.Parallel()
	w, err := sites.New(dvtest.NATS(t), topology.Set{Service: subject.Maskin}, fast())
	require.NoError(t, err)
	require.Empty(t, w.Flows())
	require.Equal(t, "no flow of another site ends here", w.Detail())
	_, stop := (&end{conn: dvtest.NATS(t), set: topology.Set{Service: subject.Maskin}}).stoppable(t, fast())
	stop()
}

func TestRunEndsWithTheConnectionAndRunsOnce(t *testing.T) {
	t.Parallel()
	_, _, b := ends(t, eventsToB())
	w, err := sites.New(b.conn, b.set, fast())
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(t.Context()) }()
	requireFlow(t, w, "it looks", func(f sites.Flow) bool { return !f.Looked.IsZero() })
	require.ErrorIs(t, w.Run(t.Context()), sites.ErrAlreadyRun)
	require.NoError(t, b.conn.Drain(t.Context()))
	require.ErrorIs(t, <-ended, sites.ErrConnectionClosed)
	again, err := sites.New(b.conn, b.set, fast())
	require.NoError(t, err)
	require.ErrorIs(t, again.Run(t.Context()), sites.ErrConnectionClosed)
}

// Slow is not down. A row of docs/DELIVERY.md.
func TestASlowLinkIsNoPartition(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	s.Latency(200 * time.Millisecond)
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	for range 3 {
		a.publish(t, 10, "server")
		requireAll(t, a, b, w)
	}
}

// A row of docs/DELIVERY.md.
func TestEachSiteMayRestartUnderItsWatcher(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	a.publish(t, 10, "server")
	requireAll(t, a, b, w)
	for _, site := range []*dvtest.Site{s.A(), s.B()} {
		site.Restart(t)
		require.Eventually(t, func() bool { return a.conn.Ping(t.Context()) == nil }, soon, tick)
		a.publish(t, 10, "server")
		requireAll(t, a, b, w)
	}
}

// What is missing is sent again by clusters, too, after their leaders have changed.
//
// A row of docs/DELIVERY.md.
func TestClusteredSitesChangeLeadersUnderTheirWatchers(t *testing.T) {
	t.Parallel()
	flow := eventsToB()
	flow.Limits.Replicas = 3
	s := dvtest.ClusteredSites(t, flow)
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{Replicas: 3})}}
	a, b := &end{site: s.A(), conn: s.A().Connect(t)}, &end{site: s.B(), conn: s.B().Connect(t)}
	a.set, b.set = s.A().Ensure(t, a.conn, set), s.B().Ensure(t, b.conn, set)
	a.watcher(t, compares())
	w, stop := b.stoppable(t, compares())
	a.publish(t, 20, "server")
	requireAll(t, a, b, w)
	s.Cut()
	a.publish(t, 50, "server")
	requireFlow(t, w, "silent", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	s.Heal()
	b.site.StepDownStream(t, copyAtB)
	a.site.StepDownStream(t, events)
	requireAll(t, a, b, w)

	// The windows for duplicates would take what is sent again so soon for a repeat.
	forgetful := func(c *jetstream.StreamConfig) { c.Duplicates = 100 * time.Millisecond }
	a.configure(t, resentToB, forgetful)
	b.configure(t, copyAtB, forgetful)
	a.site.StepDownStream(t, resentToB)
	ids := newIDs(3)
	a.store(t, ids...)
	all := func() bool {
		held := b.held(t, copyAtB)
		return !slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(held, id) })
	}
	require.Eventually(t, all, soon, tick)
	stop() // what it has counted once it believes to be there, for an hour
	copied := b.stream(t, copyAtB)
	require.NoError(t, copied.DeleteMsg(t.Context(), copied.CachedInfo().State.LastSeq-1))
	require.False(t, all())
	require.Eventually(t, func() bool { // the watcher may read a replica that has not heard of it
		return !slices.ContainsFunc(b.stream(t, copyAtB).CachedInfo().Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return p.Lag > 0 || !p.Current })
	}, soon, tick)
	b.watcherWith(t, compares(), func(w *sites.Watcher) { w.SetCalm(200 * time.Millisecond) })
	require.Eventually(t, all, soon, tick)
}
