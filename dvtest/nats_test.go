package dvtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/natsconn"
)

// eventually is long enough for a loaded machine; nothing waits so long.
const eventually = 20 * time.Second

func createStream(t *testing.T, conn *natsconn.Conn, replicas int) {
	t.Helper()
	_, err := conn.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s"}, Replicas: replicas, MaxBytes: 10 << 30,
	})
	require.NoError(t, err)
}

// requireMessages waits until the stream can be reached and holds n messages.
func requireMessages(t *testing.T, conn *natsconn.Conn, n uint64) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stream, err := conn.JetStream().Stream(ctx, "S")
		require.NoError(c, err)
		require.Equal(c, n, stream.CachedInfo().State.Msgs)
	}, eventually, time.Millisecond)
}

func TestEachTestHasABrokerOfItsOwn(t *testing.T) {
	t.Parallel()
	first, second := dvtest.NATS(t), dvtest.NATS(t)
	require.NoError(t, first.Ready())
	createStream(t, first, 1)
	_, err := second.JetStream().Stream(t.Context(), "S")
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestRestartedServerKeepsItsStreams(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	conn, url := server.Connect(t), server.URL()
	createStream(t, conn, 1)
	_, err := conn.JetStream().Publish(t.Context(), "s", nil)
	require.NoError(t, err)

	server.Stop()
	require.Eventually(t, func() bool { return conn.Ready() != nil }, eventually, time.Millisecond)
	server.Restart(t)
	require.Equal(t, url, server.URL())
	requireMessages(t, conn, 1)
	require.NoError(t, server.Connect(t).Ready())
}

func TestClusterSurvivesTheLossOfALeader(t *testing.T) {
	t.Parallel()
	cluster := dvtest.Cluster(t)
	require.Len(t, cluster.Nodes(), 3)
	conn := cluster.Connect(t)
	createStream(t, conn, 3)
	_, err := conn.JetStream().CreateConsumer(t.Context(), "S", jetstream.ConsumerConfig{Durable: "d"})
	require.NoError(t, err)
	_, err = conn.JetStream().Publish(t.Context(), "s", nil)
	require.NoError(t, err)

	cluster.StepDownStream(t, "S")
	cluster.StepDownConsumer(t, "S", "d")
	node := cluster.StopStreamLeader(t, "S")
	requireMessages(t, conn, 1)
	node.Restart(t)
	cluster.AwaitReady(t)
	requireMessages(t, conn, 1)
}

func BenchmarkNATS(b *testing.B) {
	for b.Loop() {
		dvtest.NATS(b)
	}
}
