package dvtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/twosites"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/topology"
)

// The sites of [Sites], which are also their JetStream domains.
const (
	SiteA = "dc1" // accepts the link
	SiteB = "dc2" // dials it
)

const (
	// sourceAnswer is how long a server is given to hear of a source before it is
	// made to ask again; it takes milliseconds.
	sourceAnswer = 5 * time.Second
	// lookEvery is how often the link and the flows are looked at.
	lookEvery = 10 * time.Millisecond
)

// TwoSites is two datacenters of one test, joined by a link that the test
// disturbs. Both run what [topology.Network.ServerConfig] writes. Its methods are
// safe for concurrent use.
type TwoSites struct {
	network topology.Network
	pair    *twosites.Pair
	a, b    *Site
}

// Site is one of two sites: a NATS server, or a cluster of three, with JetStream
// in a domain of its own. Its methods are safe for concurrent use.
type Site struct {
	name    string
	network topology.Network
	servers *twosites.Site
	cluster *natsserver.Cluster // nil for a single server
}

// Sites starts two NATS servers for this test alone, joined by a leafnode link
// with the rights that the flows need, and returns when the link is up. The flows
// are between [SiteA] and [SiteB]; their streams are made by
// [Site.Ensure]. Everything ends with the test.
func Sites(tb testing.TB, flows ...topology.Flow) *TwoSites {
	tb.Helper()
	return startSites(tb, 1, flows)
}

// ClusteredSites is Sites with three servers at each. Skipped with -short.
func ClusteredSites(tb testing.TB, flows ...topology.Flow) *TwoSites {
	tb.Helper()
	skipShort(tb, "two NATS clusters")
	return startSites(tb, 3, flows)
}

func startSites(tb testing.TB, nodes int, flows []topology.Flow) *TwoSites {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	pair, err := twosites.Start(ctx, tb.TempDir(), twosites.Options{A: SiteA, B: SiteB, Nodes: nodes, Flows: flows})
	require.NoError(tb, err)
	tb.Cleanup(pair.Stop)
	s := &TwoSites{network: pair.Network(), pair: pair}
	s.a, s.b = newSite(pair.A(), s.network), newSite(pair.B(), s.network)
	s.AwaitLink(tb)
	return s
}

func newSite(servers *twosites.Site, n topology.Network) *Site {
	return &Site{name: servers.Name(), network: n, servers: servers, cluster: servers.Cluster()}
}

// Network is the declaration that the sites run.
func (s *TwoSites) Network() topology.Network { return s.network }

// A is the site that accepts the link, [SiteA].
func (s *TwoSites) A() *Site { return s.a }

// B is the site that dials the link, [SiteB].
func (s *TwoSites) B() *Site { return s.b }

// Cut resets the link's connections and refuses new ones until Heal.
func (s *TwoSites) Cut() { s.pair.Cut() }

// BlackHole lets nothing pass until Heal, while the connections stay: what a
// network does whose packets vanish. What TCP would send again arrives then.
func (s *TwoSites) BlackHole() { s.pair.BlackHole() }

// Heal ends a Cut and a BlackHole. The link is dialled again within
// milliseconds; AwaitLink says when it is up.
func (s *TwoSites) Heal() { s.pair.Heal() }

// Flap cuts and heals the link times times, each state for half of period, and
// leaves it whole. It returns when it is done.
func (s *TwoSites) Flap(tb testing.TB, times int, period time.Duration) {
	tb.Helper()
	s.pair.Flap(tb.Context(), times, period)
}

// Latency delays what passes the link by d in each direction; 0 ends it. Heal
// does not.
func (s *TwoSites) Latency(d time.Duration) { s.pair.Latency(d) }

// Passed is how many bytes crossed the link, both directions together.
func (s *TwoSites) Passed() int64 { return s.pair.Passed() }

// AwaitLink waits until the link is up: every server of SiteB that runs has a
// connection to SiteA.
func (s *TwoSites) AwaitLink(tb testing.TB) {
	tb.Helper()
	require.Eventually(tb, s.pair.LinkUp, patience, lookEvery, "the link does not come up")
}

// AwaitFlows waits until the link is up and every flow whose stream exists moves,
// after a Heal or a Restart. A question of the server that was lost with the link
// would be asked again after 40 s only; it is made to ask at once, see
// [topology.Resume].
func (s *TwoSites) AwaitFlows(tb testing.TB) {
	tb.Helper()
	s.AwaitLink(tb)
	for _, site := range []*Site{s.a, s.b} {
		js := site.Connect(tb).JetStream()
		for _, f := range s.network.Flows {
			if f.To != site.name {
				continue
			}
			stream := s.network.StreamOf(f)
			if f.Cargo == topology.CargoCommands {
				stream = s.network.Commands(site.name, f.Service, f.Limits)
			}
			awaitSources(tb, js, stream)
		}
	}
}

// awaitSources resumes a stream until it has heard of all its sources.
func awaitSources(tb testing.TB, js jetstream.JetStream, stream topology.Stream) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if _, err := js.Stream(ctx, stream.Name); errors.Is(err, jetstream.ErrStreamNotFound) {
		return
	}
	for {
		if ctx.Err() != nil {
			require.FailNow(tb, "a flow does not move", "%s hears nothing of a stream of the other site; does Site.Ensure make all of them there?", stream.Name)
		}
		require.NoError(tb, topology.Resume(context.WithoutCancel(ctx), js, stream))
		deadline := time.Now().Add(sourceAnswer)
		for time.Now().Before(deadline) {
			if s, err := js.Stream(ctx, stream.Name); err == nil && moves(s.CachedInfo()) {
				return
			}
			<-time.After(lookEvery)
		}
	}
}

// moves: Active is negative for a source that was not heard of, and heartbeats
// come every second.
func moves(info *jetstream.StreamInfo) bool {
	return len(info.Sources) > 0 && !slices.ContainsFunc(info.Sources, func(s *jetstream.StreamSourceInfo) bool {
		return s.Active < 0 || s.Active > 2*time.Second
	})
}

// Name is the site's name and domain.
func (s *Site) Name() string { return s.name }

// URL is the site's address with its user and password, for a client outside
// this process as well.
func (s *Site) URL() string { return s.servers.URL() }

// Connect opens a connection that ends with the test. It reconnects within
// milliseconds after a Restart.
func (s *Site) Connect(tb testing.TB) *natsconn.Conn {
	tb.Helper()
	return connect(tb, s.servers.Address(), s.servers.User())
}

// Ensure makes the streams and durables that set has at this site, those of the
// flows that its service owns here included, and returns the set as it is here.
func (s *Site) Ensure(tb testing.TB, conn *natsconn.Conn, set topology.Set) topology.Set {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	here := s.network.At(s.name, set)
	require.NoError(tb, topology.Ensure(ctx, conn.JetStream(), here))
	return here
}

// Stop shuts the site's servers down in an orderly way. Streams and addresses
// stay for Restart.
func (s *Site) Stop() { s.servers.Stop() }

// Restart stops the site's servers where they run and starts them again with
// their streams and addresses.
func (s *Site) Restart(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	require.NoError(tb, s.servers.Restart(ctx))
}

// StepDownStream moves the leader of a stream to another server of the site. It
// is for [ClusteredSites].
func (s *Site) StepDownStream(tb testing.TB, stream string) {
	tb.Helper()
	require.NotNil(tb, s.cluster, "site %s is a single server; use ClusteredSites", s.name)
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	require.NoError(tb, s.cluster.StepDownStream(ctx, stream))
}
