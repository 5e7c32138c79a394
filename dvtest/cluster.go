package dvtest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/natsconn"
)

// NATSCluster is three NATS servers with JetStream that replicate to each other,
// of one test. Its methods are safe for concurrent use.
type NATSCluster struct {
	cluster *natsserver.Cluster
}

// Cluster starts three NATS servers for this test alone and returns when streams
// with three replicas can be created, after about half a second. They end with
// the test. Skipped with -short.
func Cluster(tb testing.TB) *NATSCluster {
	tb.Helper()
	skipShort(tb, "a NATS cluster")
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	cluster, err := natsserver.StartCluster(ctx, tb.TempDir(), natsserver.ClusterOptions{})
	require.NoError(tb, err)
	tb.Cleanup(cluster.Stop)
	return &NATSCluster{cluster: cluster}
}

// URL is the address of all three servers, separated by commas.
func (c *NATSCluster) URL() string { return c.cluster.URL() }

// Nodes are the three servers; each may be stopped and restarted by itself.
// After a Restart, [NATSCluster.AwaitReady] says when it takes part again.
func (c *NATSCluster) Nodes() []*NATSServer {
	var nodes []*NATSServer
	for _, node := range c.cluster.Nodes() {
		nodes = append(nodes, &NATSServer{server: node, tcp: true})
	}
	return nodes
}

// Connect opens a connection that ends with the test and moves to another server
// when its own stops.
func (c *NATSCluster) Connect(tb testing.TB) *natsconn.Conn {
	tb.Helper()
	return connect(tb, c.URL())
}

// AwaitReady waits until all running servers take part in the cluster.
func (c *NATSCluster) AwaitReady(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, c.bounded(tb, c.cluster.Ready))
}

// StepDownStream moves the leader of a stream to another server.
func (c *NATSCluster) StepDownStream(tb testing.TB, stream string) {
	tb.Helper()
	require.NoError(tb, c.bounded(tb, func(ctx context.Context) error {
		return c.cluster.StepDownStream(ctx, stream)
	}))
}

// StepDownConsumer moves the leader of a durable to another server.
func (c *NATSCluster) StepDownConsumer(tb testing.TB, stream, durable string) {
	tb.Helper()
	require.NoError(tb, c.bounded(tb, func(ctx context.Context) error {
		return c.cluster.StepDownConsumer(ctx, stream, durable)
	}))
}

// StopStreamLeader stops the server that leads a stream and returns it, for a
// later Restart.
func (c *NATSCluster) StopStreamLeader(tb testing.TB, stream string) *NATSServer {
	tb.Helper()
	leader := c.cluster.StreamLeader(stream)
	require.NotNil(tb, leader, "no server leads stream %s", stream)
	leader.Stop()
	return &NATSServer{server: leader, tcp: true}
}

// bounded runs what waits for an election.
func (c *NATSCluster) bounded(tb testing.TB, wait func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	return wait(ctx)
}

// skipShort leaves a test out of "go test -short", the only reason to skip one.
func skipShort(tb testing.TB, needs string) {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("skipped by -short: the test needs %s", needs)
	}
}
