package dvtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/faultlink"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/topology"
)

// The sites of [Sites], which are also their JetStream domains.
const (
	SiteA = "dc1" // accepts the link
	SiteB = "dc2" // dials it
)

const (
	siteUser = "dv"
	// siteAttempts is how often sites are tried on other ports.
	siteAttempts = 3
	// sourceAnswer is how long a server is given to hear of a source before it is
	// made to ask again; it takes milliseconds.
	sourceAnswer = 5 * time.Second
	// siteReconnect is how soon the link is dialled again after a cut.
	siteReconnect = 50 * time.Millisecond
)

// TwoSites is two datacenters of one test, joined by a link that the test
// disturbs. Both run what [topology.Network.ServerConfig] writes. Its methods are
// safe for concurrent use.
type TwoSites struct {
	network topology.Network
	links   []*faultlink.Link // one for each server that accepts
	a, b    *Site
}

// Site is one of two sites: a NATS server, or a cluster of three, with JetStream
// in a domain of its own. Its methods are safe for concurrent use.
type Site struct {
	name    string
	network topology.Network
	server  *natsserver.Server // nil for a cluster
	cluster *natsserver.Cluster
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
	var errs []error
	for range siteAttempts {
		s := &TwoSites{}
		err := s.start(ctx, tb.TempDir(), nodes, flows)
		if err == nil {
			tb.Cleanup(s.stop)
			s.AwaitLink(tb)
			return s
		}
		s.stop()
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	require.NoError(tb, errors.Join(errs...))
	return nil
}

func (s *TwoSites) start(ctx context.Context, dir string, nodes int, flows []topology.Flow) error {
	ports, err := natsserver.FreePorts(nodes)
	if err != nil {
		return err
	}
	a := topology.Site{Name: SiteA, Domain: SiteA}
	for _, port := range ports {
		link, err := faultlink.Listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return err
		}
		s.links = append(s.links, link)
		a.Accepts = append(a.Accepts, link.Addr())
	}
	s.network = topology.Network{Sites: []topology.Site{a, {Name: SiteB, Domain: SiteB}}, Flows: flows}
	if s.a, err = startSite(ctx, dir, s.network, SiteA, ports); err != nil {
		return err
	}
	s.b, err = startSite(ctx, dir, s.network, SiteB, ports)
	return err
}

// startSite runs the servers of one site. leafPorts are where those of SiteA
// accept; their number is that of the servers of either site.
func startSite(ctx context.Context, dir string, n topology.Network, name string, leafPorts []int) (*Site, error) {
	text, err := n.ServerConfig(name)
	if err != nil {
		return nil, err
	}
	configure := func(node int, o *natsd.Options) error {
		variables := siteVariables(n, name, leafPorts[node], o)
		host, port := o.Host, o.Port // stay the same over a restart
		o.StoreDir = ""              // the text names it, and it may be named once only
		err := o.ProcessConfigString(variables + text)
		o.Host, o.Port = host, port
		o.LeafNode.ReconnectInterval = siteReconnect
		if o.Cluster.Name != "" {
			o.Cluster.Name = name // two clusters of one name would take each other for one
		}
		return err
	}
	// Later starts have no way to say what is wrong with the text.
	if err := configure(0, &natsd.Options{StoreDir: dir}); err != nil {
		return nil, fmt.Errorf("dvtest: configuration of site %s: %w", name, err)
	}
	site := &Site{name: name, network: n}
	dir = filepath.Join(dir, name)
	if len(leafPorts) == 1 {
		site.server, err = natsserver.Start(ctx, dir, natsserver.Options{
			TCP: true, Name: name, Configure: func(o *natsd.Options) { _ = configure(0, o) },
		})
		return site, err
	}
	site.cluster, err = natsserver.StartCluster(ctx, dir, natsserver.ClusterOptions{
		Account:   topology.Account,
		Configure: func(node int, o *natsd.Options) { o.ServerName = name + "_" + o.ServerName; _ = configure(node, o) },
	})
	return site, err
}

// siteVariables are what the environment of a server would say.
func siteVariables(n topology.Network, name string, leafPort int, o *natsd.Options) string {
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s: %q\n", name, value) }
	set("DV_SERVER_NAME", o.ServerName)
	set("DV_LISTEN", "127.0.0.1:-1")
	set("DV_STORE_DIR", o.StoreDir)
	set("DV_USER", siteUser)
	set("DV_PASSWORD", siteUser)
	if name == SiteA {
		set("DV_LEAF_LISTEN", net.JoinHostPort("127.0.0.1", strconv.Itoa(leafPort)))
		set("DV_LEAF_DC2_PASSWORD", siteUser)
		return b.String()
	}
	a, _ := n.Site(SiteA)
	for i, address := range a.Accepts {
		variable := "DV_LEAF_DC1_URL"
		if i > 0 {
			variable += fmt.Sprintf("_%d", i+1)
		}
		set(variable, "nats-leaf://leaf_"+SiteB+":"+siteUser+"@"+address)
	}
	return b.String()
}

// stop also ends what a failed start left.
func (s *TwoSites) stop() {
	for _, site := range []*Site{s.b, s.a} {
		if site != nil {
			site.Stop()
		}
	}
	for _, link := range s.links {
		link.Close()
	}
}

// Network is the declaration that the sites run.
func (s *TwoSites) Network() topology.Network { return s.network }

// A is the site that accepts the link, [SiteA].
func (s *TwoSites) A() *Site { return s.a }

// B is the site that dials the link, [SiteB].
func (s *TwoSites) B() *Site { return s.b }

// Cut resets the link's connections and refuses new ones until Heal.
func (s *TwoSites) Cut() {
	for _, link := range s.links {
		link.Cut()
	}
}

// BlackHole lets nothing pass until Heal, while the connections stay: what a
// network does whose packets vanish. What TCP would send again arrives then.
func (s *TwoSites) BlackHole() {
	for _, link := range s.links {
		link.BlackHole()
	}
}

// Heal ends a Cut and a BlackHole. The link is dialled again within
// milliseconds; AwaitLink says when it is up.
func (s *TwoSites) Heal() {
	for _, link := range s.links {
		link.Heal()
	}
}

// Flap cuts and heals the link times times, each state for half of period, and
// leaves it whole. It returns when it is done.
func (s *TwoSites) Flap(tb testing.TB, times int, period time.Duration) {
	tb.Helper()
	var flapping sync.WaitGroup
	for _, link := range s.links {
		flapping.Go(func() { link.Flap(tb.Context(), times, period) })
	}
	flapping.Wait()
}

// Latency delays what passes the link by d in each direction; 0 ends it. Heal
// does not.
func (s *TwoSites) Latency(d time.Duration) {
	for _, link := range s.links {
		link.Latency(d)
	}
}

// Passed is how many bytes crossed the link, both directions together.
func (s *TwoSites) Passed() int64 {
	var n int64
	for _, link := range s.links {
		n += link.Passed()
	}
	return n
}

// AwaitLink waits until the link is up: every server of SiteB that runs has a
// connection to SiteA.
func (s *TwoSites) AwaitLink(tb testing.TB) {
	tb.Helper()
	require.Eventually(tb, func() bool {
		dialled := 0
		for _, node := range s.b.nodes() {
			if native := node.Native(); native != nil {
				dialled++
				if native.NumLeafNodes() == 0 {
					return false
				}
			}
		}
		accepted := 0
		for _, node := range s.a.nodes() {
			if native := node.Native(); native != nil {
				accepted += native.NumLeafNodes()
			}
		}
		return accepted >= dialled
	}, patience, siteReconnect/10, "the link does not come up")
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
		require.NoError(tb, topology.Resume(ctx, js, stream))
		deadline := time.Now().Add(sourceAnswer)
		for time.Now().Before(deadline) {
			if s, err := js.Stream(ctx, stream.Name); err == nil && moves(s.CachedInfo()) {
				return
			}
			<-time.After(siteReconnect / 10)
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

func (s *Site) nodes() []*natsserver.Server {
	if s.cluster != nil {
		return s.cluster.Nodes()
	}
	return []*natsserver.Server{s.server}
}

// URL is the site's address with its user and password, for a client outside
// this process as well.
func (s *Site) URL() string {
	return strings.ReplaceAll(s.address(), "nats://", "nats://"+siteUser+":"+siteUser+"@")
}

func (s *Site) address() string {
	if s.cluster != nil {
		return s.cluster.URL()
	}
	return s.server.URL()
}

// Connect opens a connection that ends with the test. It reconnects within
// milliseconds after a Restart.
func (s *Site) Connect(tb testing.TB) *natsconn.Conn {
	tb.Helper()
	return connect(tb, s.address(), nats.UserInfo(siteUser, siteUser))
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
func (s *Site) Stop() {
	if s.cluster != nil {
		s.cluster.Stop()
	}
	if s.server != nil {
		s.server.Stop()
	}
}

// Restart stops the site's servers where they run and starts them again with
// their streams and addresses.
func (s *Site) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop()
	for _, node := range s.nodes() {
		require.NoError(tb, node.Restart(tb.Context()))
	}
	if s.cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	require.NoError(tb, s.cluster.Ready(ctx))
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
