package main

import (
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// heardAges differ between runs; so do the first looks.
var heardAges = regexp.MustCompile(`[0-9dhms]+ ago`)

func TestSitesStatusTellsALinkThatIsDownFromASiteWithoutAWatcher(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Maskin})
	a, b := s.A().Connect(t), s.B().Connect(t)
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})}}
	setA := s.A().Ensure(t, a, set)
	file := writeSet(t, s.B().Ensure(t, b, set))
	status := func(site *dvtest.Site, args ...string) result {
		env := environment{envNATS: site.URL()}
		return env.dvmsg(t, append([]string{"sites", "status", "--file", file}, args...)...)
	}
	_, err := a.JetStream().Publish(t.Context(), "dv.maskin.evt.server.provisioned", nil, jetstream.WithExpectStream("DV_MASKIN_EVT"))
	require.NoError(t, err)
	await := func(what string, wanted func(result) bool) result {
		var r result
		require.Eventually(t, func() bool { r = status(s.B()); return wanted(r) }, 20*time.Second, 10*time.Millisecond, what)
		return r
	}
	await("heard of", func(r result) bool { return r.code == exitOK })
	require.Contains(t, status(s.B()).out, "dc1 is heard of, and nobody answers there about DV_MASKIN_EVT; if it stays so, run a sites.Watcher there in maskin")

	w, err := sites.New(a, setA, sites.Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	require.Eventually(t, func() bool {
		f := decode[sitesStatusResult](t, status(s.B(), "--json").ok(t)).Flows[0]
		return f.Reachable && f.Complete && *f.Behind == 0
	}, 20*time.Second, 10*time.Millisecond)
	requireGolden(t, "sites-status.golden", masked(heardAges.ReplaceAllString(status(s.B(), "--site", "dc2").ok(t).out, "AGE ago")))
	require.Equal(t, "site dc1: no flow of another site ends here\n", status(s.A()).ok(t).out)
	status(s.A(), "--site", "dc2").failed(t, exitFailure, `domain "dc1" is not that of site dc2; connect to that site`)
	status(s.A(), "--site", "dc7").failed(t, exitUsage, "has no site")

	s.Cut()
	r := await("silent", func(r result) bool { return r.code == exitFound })
	require.Contains(t, r.err, "site dc2: 1 flow is not moving")
	requireGolden(t, "sites-status-cut.golden", masked(heardAges.ReplaceAllString(r.out, "AGE ago")))
	alone := writeSet(t, set)
	environment{envNATS: s.B().URL()}.dvmsg(t, "sites", "status", "--file", alone).failed(t, exitUsage, "has no network")
}
