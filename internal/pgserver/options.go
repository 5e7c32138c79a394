package pgserver

import (
	"maps"
	"os"
	"slices"
	"strconv"
)

// Options say what kind of server [Start] runs. The zero value is a fast server
// with a cluster of its own.
type Options struct {
	// Parent is the directory in which the server's own directory is made.
	// The socket lies in it, and socket paths are limited to about 100 bytes;
	// a parent that is longer, or that the server's user may not enter, is
	// replaced by /tmp.
	// Default: /dev/shm where it lies in memory with 4 GiB free, TMPDIR is not
	// set and Durable is not either; else os.TempDir().
	Parent string

	// Durable forces commits to disk and writes full pages, as a production
	// server does: for tests that kill the server and then ask what is left.
	// Default: false, which survives Kill9 as a rule, but no power loss, and
	// can leave a torn page when a write is cut short.
	Durable bool

	// CachedInit copies the data directory from one that an earlier run kept in
	// os.UserCacheDir (about 40 MB per PostgreSQL version), instead of running
	// initdb, which takes several times as long.
	// All servers started this way have the same system_identifier: leave it
	// off where a test needs another cluster.
	// Default: false.
	CachedInit bool

	// RestartAfterCrash lets the server restart itself when one of its
	// processes dies, as production servers do.
	// Default: false, so that a crash ends the server and is seen.
	RestartAfterCrash bool

	// MaxConnections is the server's max_connections.
	// Default: 200.
	MaxConnections int

	// Settings are further server settings, name to value as in
	// postgresql.conf; they win over all others.
	// Default: none.
	Settings map[string]string
}

// arguments is the command line of the server in dir.
func (o Options) arguments(dir string) []string {
	settings := map[string]string{
		"unix_socket_directories": dir,
		"listen_addresses":        "",
		"port":                    socketPort,
		"max_connections":         strconv.Itoa(maxConnections(o.MaxConnections)),
		"shared_buffers":          "32MB",
		// Two-phase transactions are a case that the outbox documents.
		"max_prepared_transactions": "10",
		"restart_after_crash":       onOff(o.RestartAfterCrash),
		// Files in the data directory instead of /dev/shm, which containers
		// keep small and where a killed server would leave some behind.
		"dynamic_shared_memory_type": "mmap",
		// Compiling a plan takes longer than the queries of a test.
		"jit":      "off",
		"timezone": "UTC",
	}
	if !o.Durable {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
		// The log of a busy server would otherwise grow to 1 GB, in memory
		// perhaps, before it is used again.
		settings["max_wal_size"] = "256MB"
		// Whether a table has statistics must not depend on when a test ran.
		settings["autovacuum"] = "off"
	}
	maps.Copy(settings, o.Settings)
	args := []string{"-D", dataDir(dir)}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// parent is the directory to make the server's own in.
func (o Options) parent() string {
	if o.Parent != "" {
		return o.Parent
	}
	if _, chosen := os.LookupEnv("TMPDIR"); !chosen && !o.Durable {
		if dir := memoryDir(); dir != "" {
			return dir
		}
	}
	return os.TempDir()
}

func maxConnections(n int) int {
	if n <= 0 {
		return 200
	}
	return n
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
