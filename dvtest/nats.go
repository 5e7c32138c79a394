package dvtest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/natsconn"
)

const (
	// patience bounds what takes milliseconds on a machine that is not
	// overloaded.
	patience = 30 * time.Second
	// reconnectWait lets clients come back at once after a restart.
	reconnectWait = 10 * time.Millisecond
)

// NATS starts a NATS server with JetStream for this test alone and returns a
// connection to it. The server opens no port; both end with the test. Use
// [Server] where a test restarts the server or needs further connections.
func NATS(tb testing.TB) *natsconn.Conn {
	tb.Helper()
	return startServer(tb, natsserver.Options{}).Connect(tb)
}

// NATSServer is a NATS server with JetStream of one test. Its methods are safe
// for concurrent use.
type NATSServer struct {
	server *natsserver.Server
	tcp    bool
}

// Server starts a NATS server with JetStream for this test alone, on a free TCP
// port of 127.0.0.1. It ends with the test.
func Server(tb testing.TB) *NATSServer {
	tb.Helper()
	return startServer(tb, natsserver.Options{TCP: true})
}

func startServer(tb testing.TB, options natsserver.Options) *NATSServer {
	tb.Helper()
	server, err := natsserver.Start(tb.Context(), tb.TempDir(), options)
	require.NoError(tb, err)
	tb.Cleanup(server.Stop)
	return &NATSServer{server: server, tcp: options.TCP}
}

// URL is the server's address, for a client outside this process as well.
func (s *NATSServer) URL() string { return s.server.URL() }

// Connect opens a connection that ends with the test. It reconnects within
// milliseconds after a Restart.
func (s *NATSServer) Connect(tb testing.TB) *natsconn.Conn {
	tb.Helper()
	if s.tcp {
		return connect(tb, s.URL())
	}
	return connect(tb, s.URL(), s.server.Option())
}

// Stop shuts the server down in an orderly way. Its streams and its address stay
// for [NATSServer.Restart].
func (s *NATSServer) Stop() { s.server.Stop() }

// Restart stops the server where it runs and starts it again with the streams
// and the address it had.
func (s *NATSServer) Restart(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, s.server.Restart(tb.Context()))
}

// connect opens a connection that ends with the test.
func connect(tb testing.TB, url string, options ...nats.Option) *natsconn.Conn {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	pace := []nats.Option{nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(0, 0)}
	conn, err := natsconn.Dial(ctx, natsconn.Config{
		URL: url,
		// The server is up; one that is not is to be seen at once.
		FailFast: true,
		Options:  append(pace, options...),
		// Tests stop servers on purpose; a line for each would hide the rest.
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(tb, err)
	// Closed, not drained: at its end a test has seen what it wants to see, and
	// its server may be down.
	tb.Cleanup(conn.NATS().Close)
	return conn
}
