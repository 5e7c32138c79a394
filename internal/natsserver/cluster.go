package natsserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// clusterSize is the smallest number that survives the loss of one.
	clusterSize = 3
	// portAttempts is how often a cluster is tried on other ports: they are
	// reserved, let go and opened again, and another process may be faster.
	portAttempts = 3
	// leaderPoll is how often it is looked up who leads.
	leaderPoll = 5 * time.Millisecond
)

// ClusterOptions say what kind of cluster [StartCluster] runs.
type ClusterOptions struct {
	// Configure changes the options of the node with the given index (0 to 2)
	// before each start, last of all.
	// Default: none.
	Configure func(node int, options *server.Options)

	// Account is the one whose streams and durables are asked about.
	// Default: the one that clients without credentials are in.
	Account string
}

// Cluster is three servers with JetStream that replicate to each other.
// Its methods are safe for concurrent use.
type Cluster struct {
	nodes   []*Server
	account string
}

// StartCluster runs three servers named n1 to n3, which keep their streams in
// directories of these names below storeDir, and returns when a stream with
// three replicas can be created: when a meta leader is elected that has seen
// all its peers. That takes about half a second; ctx bounds it.
func StartCluster(ctx context.Context, storeDir string, options ClusterOptions) (*Cluster, error) {
	var errs []error
	for range portAttempts {
		c, err := startCluster(ctx, storeDir, options)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func startCluster(ctx context.Context, storeDir string, options ClusterOptions) (*Cluster, error) {
	ports, err := FreePorts(clusterSize)
	if err != nil {
		return nil, err
	}
	c := &Cluster{account: cmp.Or(options.Account, server.DEFAULT_GLOBAL_ACCOUNT)}
	for i := range ports {
		name := fmt.Sprintf("n%d", i+1)
		node, err := Start(ctx, filepath.Join(storeDir, name), Options{
			TCP:       true,
			Name:      name,
			Configure: configureNode(i, ports, options),
		})
		if err != nil {
			c.Stop()
			return nil, fmt.Errorf("natsserver: start cluster node %s: %w", name, err)
		}
		c.nodes = append(c.nodes, node)
	}
	if err := c.Ready(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// configureNode names all three routes to every node from the start, because the
// size of the cluster, and with it the quorum, is taken from there.
func configureNode(node int, ports []int, options ClusterOptions) func(*server.Options) {
	routes := make([]string, len(ports))
	for i, port := range ports {
		routes[i] = fmt.Sprintf("nats://%s:%d", loopback, port)
	}
	return func(o *server.Options) {
		o.Cluster = server.ClusterOpts{Name: "dv", Host: loopback, Port: ports[node]}
		o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
		if options.Configure != nil {
			options.Configure(node, o)
		}
	}
}

// FreePorts finds n ports of 127.0.0.1 that nobody uses, below those that systems give
// to outgoing connections: a server that is stopped would find its port taken by a
// client of another test when it starts again. All are held until the last is found,
// so that none is given twice; another process may be faster to use one.
func FreePorts(n int) ([]int, error) {
	const low, high, tries = 10_000, 32_000, 1000
	var ports []int
	for range tries {
		port := low + rand.IntN(high-low)
		listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", loopback, port))
		if err != nil {
			continue // somebody has it
		}
		defer listener.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("natsserver: found %d of %d free ports between %d and %d in %d tries; end what holds them", len(ports), n, low, high, tries)
}

// Nodes are the three servers; each may be stopped and restarted by itself.
func (c *Cluster) Nodes() []*Server { return slices.Clone(c.nodes) }

// URL is the address of all nodes, separated by commas.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.nodes))
	for i, node := range c.nodes {
		urls[i] = node.URL()
	}
	return strings.Join(urls, ",")
}

// Stop shuts all nodes down. Their streams stay.
func (c *Cluster) Stop() {
	for _, node := range c.nodes {
		node.Stop()
	}
}

// Ready returns when all running nodes take part in the cluster again, for
// example after one was restarted.
func (c *Cluster) Ready(ctx context.Context) error {
	if err := await(ctx, c.settled); err != nil {
		return fmt.Errorf("natsserver: wait for the cluster's meta leader: %w", err)
	}
	return nil
}

// settled says whether there is a meta leader that sees every running node as
// current. A leader alone is not enough: until it has heard of its peers it
// refuses a replicated stream with "no suitable peers".
func (c *Cluster) settled() bool {
	leader := c.leader((*server.Server).JetStreamIsLeader)
	if leader == nil {
		return false
	}
	info, err := leader.Native().Jsz(nil)
	if err != nil || info.Meta == nil {
		return false
	}
	current := 1 // the leader itself is not among its replicas
	for _, peer := range info.Meta.Replicas {
		if peer.Current && !peer.Offline {
			current++
		}
	}
	return current == c.running()
}

// running counts the nodes that are not stopped.
func (c *Cluster) running() int {
	var n int
	for _, node := range c.nodes {
		if node.Native() != nil {
			n++
		}
	}
	return n
}
