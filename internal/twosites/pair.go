package twosites

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"codeberg.org/dataverket/messaging/internal/faultlink"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// startAttempts is how often sites are tried on other ports: another process
	// may be faster to use one.
	startAttempts = 3
	loopback      = "127.0.0.1"
)

// Options say what [Start] runs.
type Options struct {
	// A and B are the names of the sites and their domains. A accepts the link, B
	// dials it. Required, as topology.Site.Name demands them.
	A, B string

	// Nodes is how many servers each site has: 1, or 3 for a cluster.
	// Default: 1.
	Nodes int

	// Flows are what may cross the link.
	// Default: none.
	Flows []topology.Flow

	// ServerConfig writes the configuration of a site's servers.
	// Default: topology.Network.ServerConfig.
	ServerConfig func(n topology.Network, site string) (string, error)
}

// Pair is two sites and the link between them. Its methods are safe for
// concurrent use.
type Pair struct {
	network topology.Network
	links   []*faultlink.Link // one for each server that accepts
	a, b    *Site
}

// Start runs two sites that keep their streams below dir. It returns when their
// servers take connections, which is before the link is up: see [Pair.LinkUp].
func Start(ctx context.Context, dir string, o Options) (*Pair, error) {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.ServerConfig == nil {
		o.ServerConfig = topology.Network.ServerConfig
	}
	var errs []error
	for range startAttempts {
		p := &Pair{}
		err := p.start(ctx, dir, o)
		if err == nil {
			return p, nil
		}
		p.Stop()
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (p *Pair) start(ctx context.Context, dir string, o Options) error {
	ports, err := natsserver.FreePorts(o.Nodes)
	if err != nil {
		return err
	}
	a := topology.Site{Name: o.A, Domain: o.A}
	for _, port := range ports {
		link, err := faultlink.Listen(net.JoinHostPort(loopback, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		p.links = append(p.links, link)
		a.Accepts = append(a.Accepts, link.Addr())
	}
	p.network = topology.Network{Sites: []topology.Site{a, {Name: o.B, Domain: o.B}}, Flows: o.Flows}
	if p.a, err = startSite(ctx, dir, p.network, o.A, ports, o.ServerConfig); err != nil {
		return err
	}
	p.b, err = startSite(ctx, dir, p.network, o.B, ports, o.ServerConfig)
	return err
}

// Stop ends all servers and the link.
func (p *Pair) Stop() {
	for _, site := range []*Site{p.b, p.a} { // nil where the start failed
		if site != nil {
			site.Stop()
		}
	}
	for _, link := range p.links {
		link.Close()
	}
}

// Network is the declaration that the sites run.
func (p *Pair) Network() topology.Network { return p.network }

// A is the site that accepts the link.
func (p *Pair) A() *Site { return p.a }

// B is the site that dials the link.
func (p *Pair) B() *Site { return p.b }

// Cut resets the link's connections and refuses new ones until Heal.
func (p *Pair) Cut() {
	for _, link := range p.links {
		link.Cut()
	}
}

// BlackHole lets nothing pass until Heal, while the connections stay.
func (p *Pair) BlackHole() {
	for _, link := range p.links {
		link.BlackHole()
	}
}

// Heal ends a Cut and a BlackHole.
func (p *Pair) Heal() {
	for _, link := range p.links {
		link.Heal()
	}
}

// Flap cuts and heals the link times times, each state for half of period, and
// leaves it whole. It returns when it is done or ctx ends.
func (p *Pair) Flap(ctx context.Context, times int, period time.Duration) {
	var flapping sync.WaitGroup
	for _, link := range p.links {
		flapping.Go(func() { link.Flap(ctx, times, period) })
	}
	flapping.Wait()
}

// Latency delays what passes the link by d in each direction; 0 ends it. Heal
// does not.
func (p *Pair) Latency(d time.Duration) {
	for _, link := range p.links {
		link.Latency(d)
	}
}

// Passed is how many bytes crossed the link, both directions together.
func (p *Pair) Passed() int64 {
	var n int64
	for _, link := range p.links {
		n += link.Passed()
	}
	return n
}

// LinkUp reports whether every server of B that runs has a connection to A.
func (p *Pair) LinkUp() bool {
	dialled := 0
	for _, node := range p.b.Nodes() {
		if native := node.Native(); native != nil {
			dialled++
			if native.NumLeafNodes() == 0 {
				return false
			}
		}
	}
	accepted := 0
	for _, node := range p.a.Nodes() {
		if native := node.Native(); native != nil {
			accepted += native.NumLeafNodes()
		}
	}
	return accepted >= dialled
}
