package health_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/health"
	"codeberg.org/dataverket/messaging/internal/faultlink"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/natsconn"
)

// awaitCode probes until the answer is code, and returns the last one.
func awaitCode(t *testing.T, h http.Handler, code int) (got report) {
	t.Helper()
	require.Eventually(t, func() bool {
		var have int
		have, got = probe(t, h)
		return have == code
	}, 20*time.Second, 20*time.Millisecond)
	return got
}

// A row of docs/DELIVERY.md.
func TestKilledDatabaseAndStoppedBrokerAreNotReadyUntilTheyAreBack(t *testing.T) {
	t.Parallel()
	database, err := pgserver.Start(t.Context(), pgserver.Options{CachedInit: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = database.Stop() })
	pool, err := pgxpool.New(t.Context(), database.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	broker, err := natsserver.Start(t.Context(), t.TempDir(), natsserver.Options{TCP: true})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: broker.URL()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Drain(context.Background()) })

	h := newHealth(t, health.Of("broker", conn), health.Ping("database", pool))
	awaitCode(t, h.Ready(), http.StatusOK)

	require.NoError(t, database.Kill9())
	got := awaitCode(t, h.Ready(), http.StatusServiceUnavailable)
	require.True(t, got.Parts[0].Ready)
	require.NotEmpty(t, got.Parts[1].Reason)
	code, got := probe(t, h.Live())
	require.Equal(t, http.StatusOK, code)
	require.NotEmpty(t, got.Parts[1].Reason)
	require.NoError(t, database.Restart(t.Context()))
	awaitCode(t, h.Ready(), http.StatusOK)

	broker.Stop()
	got = awaitCode(t, h.Ready(), http.StatusServiceUnavailable)
	require.Contains(t, got.Parts[0].Reason, "natsconn: not ready: disconnected")
	require.True(t, got.Parts[1].Ready)
	require.NoError(t, broker.Restart(t.Context()))
	awaitCode(t, h.Ready(), http.StatusOK)
}

// What the connection itself finds out after half a minute. A row of docs/DELIVERY.md.
func TestSilentBrokerIsNotReady(t *testing.T) {
	t.Parallel()
	broker, err := natsserver.Start(t.Context(), t.TempDir(), natsserver.Options{TCP: true})
	require.NoError(t, err)
	t.Cleanup(broker.Stop)
	link, err := faultlink.Listen(strings.TrimPrefix(broker.URL(), "nats://"))
	require.NoError(t, err)
	t.Cleanup(link.Close)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: "nats://" + link.Addr()})
	require.NoError(t, err)
	t.Cleanup(conn.NATS().Close)
	h := newHealth(t, health.Ping("broker", conn))
	awaitCode(t, h.Ready(), http.StatusOK)

	link.BlackHole()
	got := awaitCode(t, h.Ready(), http.StatusServiceUnavailable)
	link.Heal()
	require.NotEmpty(t, got.Parts[0].Reason)
	awaitCode(t, h.Ready(), http.StatusOK)
}
