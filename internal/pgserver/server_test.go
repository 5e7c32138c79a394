package pgserver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgserver"
)

func ExampleStart() {
	ctx := context.Background()
	server, err := pgserver.Start(ctx, pgserver.Options{CachedInit: true})
	if err != nil {
		return // the text says what to install
	}
	defer server.Stop()
	conn, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return
	}
	defer conn.Close(ctx)
}

func TestServerListensOnItsOwnSocketOnly(t *testing.T) {
	t.Parallel()
	s := cached(t)
	conn := connect(t, s)
	require.Equal(t, filepath.Join(s.Dir(), "data"), show[string](t, conn, "show data_directory"))
	require.Empty(t, show[string](t, conn, "show listen_addresses"))
	require.Equal(t, s.Major(), show[int](t, conn, "select current_setting('server_version_num')::int / 10000"))

	// Whoever reaches the socket is superuser, so nobody else may enter.
	info, err := os.Stat(s.Dir())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestServersRunBesideEachOther(t *testing.T) {
	t.Parallel()
	a, b := cached(t), cached(t)
	require.NotEqual(t, a.URL("postgres"), b.URL("postgres"))
	execute(t, connect(t, a), "create table only_a ()")
	require.False(t, show[bool](t, connect(t, b), "select to_regclass('only_a') is not null"))
}

func TestOptionsReachTheServer(t *testing.T) {
	t.Parallel()
	settings := func(s *pgserver.Server) map[string]string {
		conn, got := connect(t, s), map[string]string{}
		for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit", "autovacuum", "restart_after_crash",
			"max_connections", "max_prepared_transactions", "work_mem"} {
			got[name] = show[string](t, conn, "show "+name)
		}
		return got
	}
	require.Equal(t, map[string]string{
		"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "autovacuum": "off", "restart_after_crash": "off",
		"max_connections": "200", "max_prepared_transactions": "10", "work_mem": "4MB",
	}, settings(cached(t)))
	require.Equal(t, map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on", "restart_after_crash": "on",
		"max_connections": "20", "max_prepared_transactions": "3", "work_mem": "1MB",
	}, settings(start(t, pgserver.Options{
		CachedInit: true, Durable: true, RestartAfterCrash: true, MaxConnections: 20,
		Settings: map[string]string{"max_prepared_transactions": "3", "work_mem": "1MB"},
	})))
}

// A crash takes all processes at once, whatever they are doing, and keeps what
// was committed.
func TestKill9EndsAllProcessesAndKeepsCommits(t *testing.T) {
	t.Parallel()
	for name, durable := range map[string]bool{"durable": true, "fast": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, pgserver.Options{CachedInit: true, Durable: durable})
			conn := connect(t, s)
			backend, postmaster := show[int](t, conn, "select pg_backend_pid()"), s.PID()
			execute(t, conn, "create table kept as select generate_series(1, 1000) as n")
			execute(t, conn, "begin; insert into kept values (0)")

			require.NoError(t, s.Kill9())
			require.True(t, gone(postmaster))
			require.True(t, gone(backend), "a backend outlived the crash and may still commit")
			require.Zero(t, s.PID())
			require.NoError(t, s.Kill9(), "nothing runs: nothing to do")

			require.NoError(t, s.Restart(t.Context()))
			require.NotEqual(t, postmaster, s.PID())
			require.Equal(t, 1000, show[int](t, connect(t, s), "select count(*) from kept"))
			require.Contains(t, s.Log(), "was not properly shut down", "the start was no crash recovery")
		})
	}
}

func TestRestartIsOrderly(t *testing.T) {
	t.Parallel()
	s := cached(t)
	url, conn := s.URL("postgres"), connect(t, s)
	execute(t, conn, "create table kept ()")
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, url, s.URL("postgres"))
	require.Error(t, conn.Ping(t.Context()), "old connections are cut")
	require.True(t, show[bool](t, connect(t, s), "select to_regclass('kept') is not null"))
	require.NotContains(t, s.Log(), "was not properly shut down")
}

func TestACrashByItselfIsSeen(t *testing.T) {
	t.Parallel()
	s := cached(t)
	backend := show[int](t, connect(t, s), "select pg_backend_pid()")
	require.NoError(t, syscall.Kill(backend, syscall.SIGKILL))
	require.Eventually(t, func() bool { return s.PID() == 0 }, eventually, time.Millisecond)
	require.NoError(t, s.Restart(t.Context()))
	connect(t, s)
}

func TestStopRemovesEverything(t *testing.T) {
	t.Parallel()
	s := cached(t)
	pid, dir := s.PID(), s.Dir()
	connect(t, s) // a client does not hold it up
	began := time.Now()
	require.NoError(t, s.Stop())
	require.Less(t, time.Since(began), 5*time.Second)
	require.True(t, gone(pid))
	require.True(t, missing(dir))
	require.NoError(t, s.Stop())
	require.Zero(t, s.PID())
	require.Empty(t, s.Log())
	require.ErrorContains(t, s.Restart(t.Context()), "was stopped")
}

// An interrupt on the terminal goes to all processes of the group, and the end of
// a systemd unit to all processes of the unit. The first must not end a server
// that its program still uses while it shuts down, the second must not end the
// janitor before it has cleaned up.
func TestSignalsForTheProgramDoNotReachItsServer(t *testing.T) {
	t.Parallel()
	s := cached(t)
	for _, pid := range []int{s.PID(), s.JanitorPID()} {
		group, err := syscall.Getpgid(pid)
		require.NoError(t, err)
		require.Equal(t, pid, group)
	}
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		require.NoError(t, syscall.Kill(s.JanitorPID(), signal))
	}
	connect(t, s)
	dir := s.Dir()
	require.NoError(t, s.Stop())
	require.True(t, missing(dir))
}

func TestStopAfterKill9LeavesNoSharedMemory(t *testing.T) {
	t.Parallel()
	s := cached(t)
	status, err := os.ReadFile(filepath.Join(s.Dir(), "data", "postmaster.pid"))
	require.NoError(t, err)
	segment := strings.Fields(strings.Split(string(status), "\n")[6])[1]
	exists := func() bool {
		table, err := os.ReadFile("/proc/sysvipc/shm")
		if errors.Is(err, os.ErrNotExist) {
			return false // not Linux
		}
		require.NoError(t, err)
		for line := range strings.Lines(string(table)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[1] == segment {
				return true
			}
		}
		return false
	}
	if runtime.GOOS == "linux" {
		require.True(t, exists())
	}
	require.NoError(t, s.Kill9())
	require.NoError(t, s.Stop())
	require.False(t, exists())
}

func TestStopEndsAFrozenServer(t *testing.T) {
	t.Parallel()
	s := cached(t)
	pid := s.PID()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	began := time.Now()
	require.NoError(t, s.Stop())
	require.True(t, gone(pid))
	require.Less(t, time.Since(began), 5*time.Second, "it was not woken but waited for")
}

// A test kit keeps the server's URL and nothing else. The garbage collector once
// closed the pipe of such a server, and it vanished while its tests ran.
func TestServerOutlivesItsLastReference(t *testing.T) {
	t.Parallel()
	// Not by cached, whose cleanup refers to the server; it ends with this process.
	s, err := pgserver.Start(t.Context(), pgserver.Options{CachedInit: true})
	require.NoError(t, err)
	url := s.URL("postgres")
	s = nil
	for range 5 {
		runtime.GC()
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
	}
}

func TestStartFailureShowsTheLogAndLeavesNothing(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	_, err := pgserver.Start(t.Context(), pgserver.Options{
		Parent: parent, CachedInit: true,
		Settings: map[string]string{"shared_buffers": "nonsense"},
	})
	require.ErrorContains(t, err, `"nonsense"`)
	left, err := os.ReadDir(parent)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	// In the search, in initdb, and all of it takes longer than the last.
	for _, after := range []time.Duration{0, 10 * time.Millisecond, 150 * time.Millisecond} {
		parent, cause := t.TempDir(), errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), after, cause)
		defer cancel()
		began := time.Now()
		_, err := pgserver.Start(ctx, pgserver.Options{Parent: parent})
		require.ErrorIs(t, err, cause)
		require.Less(t, time.Since(began), 5*time.Second, "a cut start must not wait for the janitor's patience")
		left, err := os.ReadDir(parent)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestParentThatDoesNotFitASocketIsReplaced(t *testing.T) {
	t.Parallel()
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 90))
	require.NoError(t, os.Mkdir(long, 0o755))
	s := start(t, pgserver.Options{Parent: long, CachedInit: true})
	require.Equal(t, "/tmp", filepath.Dir(s.Dir()))
	connect(t, s)
}

// As root, the server runs as another user, who may not pass through root's
// private directories.
func TestParentThatTheServersUserMayNotEnterIsReplaced(t *testing.T) {
	t.Parallel()
	private := filepath.Join(t.TempDir(), "p")
	require.NoError(t, os.Mkdir(private, 0o700))
	s := start(t, pgserver.Options{Parent: private, CachedInit: true})
	want := private
	if os.Geteuid() == 0 {
		want = "/tmp"
	}
	require.Equal(t, want, filepath.Dir(s.Dir()))
	connect(t, s)
}

func BenchmarkStart(b *testing.B) {
	for name, options := range map[string]pgserver.Options{"initdb": {}, "cached": {CachedInit: true}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := start(b, options)
				b.StopTimer()
				require.NoError(b, s.Stop())
				b.StartTimer()
			}
		})
	}
}
