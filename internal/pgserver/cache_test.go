package pgserver_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgserver"
)

const identifier = "select system_identifier from pg_control_system()"

// emptyCache gives the test a cache of its own. It sets the environment, so the
// test cannot be parallel.
func emptyCache(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home) // macOS
	t.Setenv("XDG_CACHE_HOME", home)
}

func TestConcurrentStartsShareTheCache(t *testing.T) {
	emptyCache(t)
	old, young := unfinishedCopies(t)
	var group sync.WaitGroup
	servers, errs := make([]*pgserver.Server, 3), make([]error, 3)
	for i := range servers {
		group.Go(func() { servers[i], errs[i] = pgserver.Start(t.Context(), pgserver.Options{CachedInit: true}) })
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	for _, s := range servers {
		t.Cleanup(func() { require.NoError(t, s.Stop()) })
	}
	kept, err := servers[0].CacheDir()
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Dir(kept))
	require.NoError(t, err)
	require.Len(t, entries, 2, "only the copy and what another process may be busy with")
	require.True(t, missing(old))
	require.False(t, missing(young))

	// From here on every server is a copy.
	first, second := connect(t, cached(t)), connect(t, cached(t))
	require.Equal(t, show[int64](t, first, identifier), show[int64](t, second, identifier))
}

// unfinishedCopies are what killed processes leave in the cache: one that nobody
// works on any more, and one that somebody may.
func unfinishedCopies(t *testing.T) (old, young string) {
	t.Helper()
	home, err := os.UserCacheDir()
	require.NoError(t, err)
	parent := filepath.Join(home, "dataverket-messaging", "postgres")
	old, young = filepath.Join(parent, "tmp-old"), filepath.Join(parent, "tmp-young")
	require.NoError(t, os.MkdirAll(old, 0o700))
	require.NoError(t, os.MkdirAll(young, 0o700))
	yesterday := time.Now().Add(-24 * time.Hour)
	require.NoError(t, os.Chtimes(old, yesterday, yesterday))
	return old, young
}

func TestWithoutCacheEachClusterIsAnother(t *testing.T) {
	t.Parallel()
	first, second := start(t, pgserver.Options{}), start(t, pgserver.Options{})
	require.NotEqual(t, show[int64](t, connect(t, first), identifier), show[int64](t, connect(t, second), identifier))
}

func TestSpoiledCacheIsReplaced(t *testing.T) {
	emptyCache(t)
	kept, err := cached(t).CacheDir()
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(kept, "global", "pg_control"), 100))

	connect(t, cached(t)) // starts all the same
	require.True(t, missing(kept))
	connect(t, cached(t)) // and this one keeps a good copy again
	require.False(t, missing(kept))
	connect(t, cached(t))
}

func TestUnusableCacheDirectoryIsNoFailure(t *testing.T) {
	emptyCache(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	t.Setenv("HOME", file)
	t.Setenv("XDG_CACHE_HOME", file)
	connect(t, cached(t))
}
