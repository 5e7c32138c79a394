package natsserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/natsserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect opens a client that reconnects quickly and for ever.
func connect(tb testing.TB, url string, options ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	tb.Helper()
	options = append(options, nats.MaxReconnects(-1), nats.ReconnectWait(5*time.Millisecond), nats.ReconnectJitter(0, 0))
	nc, err := nats.Connect(url, options...)
	require.NoError(tb, err)
	tb.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(tb, err)
	return nc, js
}

// start runs a server until the end of the test.
func start(tb testing.TB, options natsserver.Options) *natsserver.Server {
	tb.Helper()
	s, err := natsserver.Start(tb.Context(), tb.TempDir(), options)
	require.NoError(tb, err)
	tb.Cleanup(s.Stop)
	return s
}

func TestServerWithoutTCPIsReachedInProcessOnly(t *testing.T) {
	t.Parallel()
	s := start(t, natsserver.Options{})
	require.Nil(t, s.Native().Addr())

	_, err := nats.Connect(s.URL())
	require.Error(t, err, "the placeholder address must lead nowhere")
	nc, _ := connect(t, s.URL(), s.Option())
	require.True(t, nc.IsConnected())
}

func TestRestartKeepsStreamsAndBringsClientsBack(t *testing.T) {
	t.Parallel()
	for name, tcp := range map[string]bool{"in process": false, "tcp": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, natsserver.Options{TCP: tcp})
			var options []nats.Option
			if !tcp {
				options = append(options, s.Option())
			}
			_, js := connect(t, s.URL(), options...)
			_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
			require.NoError(t, err)
			_, err = js.Publish(t.Context(), "s", nil)
			require.NoError(t, err)
			url := s.URL()

			s.Stop()
			require.Nil(t, s.Native())
			require.NoError(t, s.Restart(t.Context()))

			require.Equal(t, url, s.URL())
			// By a request, not by the client's state: it may not have noticed
			// yet that its old connection is gone.
			require.EventuallyWithT(t, func(collect *assert.CollectT) {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				stream, err := js.Stream(ctx, "S")
				require.NoError(collect, err)
				require.Equal(collect, uint64(1), stream.CachedInfo().State.Msgs)
			}, 20*time.Second, time.Millisecond)
		})
	}
}

// JetStream sets MaxBytes aside when a stream is created, by default at most
// three quarters of the free disk: five streams of the default size would not
// fit on the machine of a CI runner.
func TestStreamsMayDeclareMoreThanTheDiskHolds(t *testing.T) {
	t.Parallel()
	_, js := connect(t, "", start(t, natsserver.Options{}).Option())
	for _, name := range []string{"A", "B", "C"} {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, MaxBytes: 100 << 40})
		require.NoError(t, err)
	}
}

func TestClusterReplicatesAndMovesLeaders(t *testing.T) {
	t.Parallel()
	c, err := natsserver.StartCluster(t.Context(), t.TempDir(), natsserver.ClusterOptions{})
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	require.NotNil(t, c.MetaLeader())
	_, js := connect(t, c.URL())
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	_, err = stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "d"})
	require.NoError(t, err)

	streamLeader, consumerLeader := c.StreamLeader("S"), c.ConsumerLeader("S", "d")
	require.NoError(t, c.StepDownStream(t.Context(), "S"))
	require.NotSame(t, streamLeader, c.StreamLeader("S"))
	require.NoError(t, c.StepDownConsumer(t.Context(), "S", "d"))
	require.NotSame(t, consumerLeader, c.ConsumerLeader("S", "d"))

	// One node may go and come back.
	node := c.Nodes()[1]
	node.Stop()
	require.NoError(t, c.Ready(t.Context()))
	require.EventuallyWithT(t, func(collect *assert.CollectT) {
		_, err := js.Publish(t.Context(), "s", nil)
		require.NoError(collect, err)
	}, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, node.Restart(t.Context()))
	require.NoError(t, c.Ready(t.Context()))
}

func BenchmarkStart(b *testing.B) {
	for name, options := range map[string]natsserver.Options{"in process": {}, "tcp": {TCP: true}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				start(b, options).Stop()
			}
		})
	}
}

func BenchmarkStartCluster(b *testing.B) {
	for b.Loop() {
		c, err := natsserver.StartCluster(b.Context(), b.TempDir(), natsserver.ClusterOptions{})
		require.NoError(b, err)
		c.Stop()
	}
}
