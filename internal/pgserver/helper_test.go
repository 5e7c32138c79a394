package pgserver_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/pgserver"
)

// eventually is long enough for a loaded machine; nothing waits so long.
const eventually = 20 * time.Second

// TestMain also plays the process that is killed: see
// TestServerVanishesWithItsKilledProcess.
func TestMain(m *testing.M) {
	if mode := os.Getenv(victimEnv); mode != "" {
		os.Exit(victim(mode))
	}
	goleak.VerifyTestMain(m)
}

// start runs a server until the end of the test.
func start(tb testing.TB, options pgserver.Options) *pgserver.Server {
	tb.Helper()
	s, err := pgserver.Start(tb.Context(), options)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, s.Stop()) })
	return s
}

// cached starts quickly; most tests do not care about the cluster's identity.
func cached(tb testing.TB) *pgserver.Server {
	tb.Helper()
	return start(tb, pgserver.Options{CachedInit: true})
}

// connect opens a connection to the server's first database.
func connect(tb testing.TB, s *pgserver.Server) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), s.URL("postgres"))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// show reads one value.
func show[T any](tb testing.TB, conn *pgx.Conn, sql string) (value T) {
	tb.Helper()
	require.NoError(tb, conn.QueryRow(tb.Context(), sql).Scan(&value))
	return value
}

func execute(tb testing.TB, conn *pgx.Conn, sql string) {
	tb.Helper()
	_, err := conn.Exec(tb.Context(), sql)
	require.NoError(tb, err)
}

// requireGone waits until neither process nor directory exist.
func requireGone(tb testing.TB, pid int, dir string) {
	tb.Helper()
	require.Eventually(tb, func() bool { return gone(pid) && missing(dir) },
		eventually, 5*time.Millisecond, "process %d or directory %s is still there", pid, dir)
}

// gone says whether a process has ended. A container whose first process does not
// reap keeps it as a zombie, and that counts.
func gone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	var state string
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, err = fmt.Sscanf(string(stat), "%d (postgres) %s", new(int), &state)
	}
	return err == nil && state == "Z"
}

func missing(name string) bool {
	_, err := os.Lstat(name)
	return errors.Is(err, fs.ErrNotExist)
}
