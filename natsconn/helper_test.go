package natsconn_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/natsconn"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The server leaves these behind for some time after its shutdown.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushLoop"),
	)
}

// eventually is long enough for a loaded machine; nothing waits so long.
const eventually = 20 * time.Second

// broker is a server that can be stopped and started again on its port.
type broker struct {
	opts *server.Options
	srv  *server.Server
	port int
}

// newBroker starts a server on a free port, with JetStream.
func newBroker(tb testing.TB, adjust ...func(*server.Options)) *broker {
	tb.Helper()
	b := stoppedBroker(tb, adjust...)
	b.start(tb)
	return b
}

// stoppedBroker has a port on which nothing listens yet.
func stoppedBroker(tb testing.TB, adjust ...func(*server.Options)) *broker {
	tb.Helper()
	b := &broker{port: freePort(tb), opts: &server.Options{
		Host: "127.0.0.1", JetStream: true, StoreDir: tb.TempDir(), NoLog: true, NoSigs: true,
	}}
	for _, f := range adjust {
		f(b.opts)
	}
	tb.Cleanup(b.stop)
	return b
}

func (b *broker) url() string { return "nats://127.0.0.1:" + strconv.Itoa(b.port) }

func (b *broker) start(tb testing.TB) {
	tb.Helper()
	opts := b.opts.Clone()
	opts.Port = b.port
	srv, err := server.NewServer(opts)
	require.NoError(tb, err)
	srv.Start()
	b.srv = srv
	require.True(tb, srv.ReadyForConnections(eventually), "server is not up")
}

func (b *broker) stop() {
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
		b.srv = nil
	}
}

// freePort asks the system. Another process may take it before its use, which
// has not been seen in practice: the system hands out ports in turn.
func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// logBook collects log lines.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// lines returns those that contain all of the given texts.
func (l *logBook) lines(texts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.buf.String()) {
		hit := true
		for _, text := range texts {
			hit = hit && strings.Contains(line, text)
		}
		if hit {
			found = append(found, line)
		}
	}
	return found
}

// dial connects and drains at the end of the test. The pace is quicker than in
// production so that the tests are.
func dial(tb testing.TB, cfg natsconn.Config) *natsconn.Conn {
	tb.Helper()
	cfg.Options = append(cfg.Options, nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
	conn, err := natsconn.Dial(tb.Context(), cfg)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Drain(context.Background()) })
	return conn
}

func requireReason(tb testing.TB, err error, reason natsconn.Reason) *natsconn.NotReadyError {
	tb.Helper()
	notReady := new(natsconn.NotReadyError)
	require.ErrorAs(tb, err, &notReady)
	require.Equal(tb, reason, notReady.Reason, notReady.Error())
	return notReady
}

func awaitReady(tb testing.TB, conn *natsconn.Conn) {
	tb.Helper()
	require.Eventually(tb, func() bool { return conn.Ready() == nil }, eventually, 5*time.Millisecond)
}

func awaitNotReady(tb testing.TB, conn *natsconn.Conn) {
	tb.Helper()
	require.Eventually(tb, func() bool { return conn.Ready() != nil }, eventually, 5*time.Millisecond)
}
