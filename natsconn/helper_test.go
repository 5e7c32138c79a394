package natsconn_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/natsconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually is long enough for a loaded machine; nothing waits so long.
const eventually = 20 * time.Second

// broker is a server on a port of its own, with JetStream, that can be stopped
// and started again.
type broker struct{ *natsserver.Server }

// newBroker starts one.
func newBroker(tb testing.TB, configure ...func(*server.Options)) broker {
	tb.Helper()
	srv, err := natsserver.Start(tb.Context(), tb.TempDir(), natsserver.Options{TCP: true, Configure: func(o *server.Options) {
		for _, f := range configure {
			f(o)
		}
	}})
	require.NoError(tb, err)
	tb.Cleanup(srv.Stop)
	return broker{srv}
}

// stoppedBroker has a port on which nothing listens yet.
func stoppedBroker(tb testing.TB, configure ...func(*server.Options)) broker {
	tb.Helper()
	b := newBroker(tb, configure...)
	b.stop()
	return b
}

func (b broker) url() string { return b.URL() }

func (b broker) start(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, b.Restart(tb.Context()))
}

func (b broker) stop() { b.Stop() }

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
