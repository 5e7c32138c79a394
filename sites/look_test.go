package sites_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// An operator looks once, at all flows of the site, without a watcher of theirs.
func TestOneLookTellsEveryFlowOfTheSite(t *testing.T) {
	t.Parallel()
	nobodys := topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Nett}
	s, a, b := ends(t, eventsToB(), nobodys)
	_, stop := a.stoppable(t, fast())
	a.publish(t, 10, "server")
	look := func() []sites.Flow {
		flows, err := sites.Look(t.Context(), b.conn, s.Network(), dvtest.SiteB, fast())
		require.NoError(t, err)
		require.Len(t, flows, 2)
		require.Equal(t, sites.StateStuck, flows[1].State)
		require.Contains(t, flows[1].Err, "stream DV_NETT_EVT_FROM_DC1 does not exist at this site")
		return flows
	}
	require.Eventually(t, func() bool { f := look()[0]; return moving(f) && !f.CaughtUp.IsZero() }, soon, tick)
	stop()
	require.Contains(t, look()[0].Err, "dc1 is heard of, and nobody answers there")
	s.Cut()
	require.Eventually(t, func() bool { return look()[0].State == sites.StateSilent }, soon, tick)
	require.Contains(t, look()[0].Err, "the link is down")
}

func TestTheSiteOfAConnectionIsToldByTheServer(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	for want, e := range map[string]*end{dvtest.SiteA: a, dvtest.SiteB: b} {
		site, err := sites.SiteOf(t.Context(), e.conn, s.Network(), "")
		require.NoError(t, err)
		require.Equal(t, want, site)
	}
	_, err := sites.SiteOf(t.Context(), a.conn, s.Network(), dvtest.SiteB)
	require.ErrorContains(t, err, `domain "dc1" is not that of site dc2`)
	_, err = sites.SiteOf(t.Context(), a.conn, topology.Network{}, "")
	require.ErrorContains(t, err, "is of no site of the network")
}

func TestBadArgumentsAreRefusedAllAtOnce(t *testing.T) {
	t.Parallel()
	_, err := sites.New(nil, topology.Set{Site: "osl1"}, sites.Config{Every: 1, Silent: 1, AskTimeout: -1})
	for _, want := range []string{"Config.Every: 1ns is out of range", "Config.Silent", "Config.AskTimeout", "connection: is nil", "Set.Service"} {
		require.ErrorContains(t, err, want)
	}
	_, err = sites.Look(t.Context(), nil, topology.Network{Sites: []topology.Site{{}}}, "x", sites.Config{Every: 1})
	for _, want := range []string{"Config.Every", "connection: is nil", "Network.Sites[0]"} {
		require.ErrorContains(t, err, want)
	}
}
