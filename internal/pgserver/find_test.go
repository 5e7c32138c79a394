package pgserver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgserver"
)

// install puts binaries into a directory that only tell their version.
func install(tb testing.TB, root, version string) (dir string) {
	tb.Helper()
	dir = filepath.Join(root, version, "bin")
	require.NoError(tb, os.MkdirAll(dir, 0o755))
	script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s'\n", version)
	for _, name := range []string{"initdb", "postgres"} {
		require.NoError(tb, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	return dir
}

// search makes Find look at these patterns alone. It sets the environment, so the
// test cannot be parallel.
func search(t *testing.T, patterns ...string) {
	t.Helper()
	t.Setenv(pgserver.EnvBin, "")
	t.Setenv(pgserver.EnvSearch, strings.Join(patterns, ":"))
}

func TestFindTakesTheNewestVersion(t *testing.T) {
	root := t.TempDir()
	for _, version := range []string{"9.6.24", "13.4", "14.1", "100.2", "18.0"} {
		install(t, root, version)
	}
	search(t, filepath.Join(root, "1[0-9].*", "bin"), filepath.Join(root, "9*", "bin"))
	found, err := pgserver.Find(t.Context())
	require.NoError(t, err)
	require.Equal(t, 18, found.Major)
	require.Equal(t, filepath.Join(root, "18.0", "bin"), found.Dir)
	require.Equal(t, "postgres (PostgreSQL) 18.0", found.Version)
}

func TestFindPassesOverWhatCannotBeUsed(t *testing.T) {
	root := t.TempDir()
	install(t, root, "13.4")
	good := install(t, root, "14.1")
	broken := install(t, root, "17.1")
	require.NoError(t, os.WriteFile(filepath.Join(broken, "postgres"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	require.NoError(t, os.Remove(filepath.Join(install(t, root, "18.1"), "initdb")))
	search(t, filepath.Join(root, "*", "bin"))
	found, err := pgserver.Find(t.Context())
	require.NoError(t, err)
	require.Equal(t, good, found.Dir)
}

func TestMissingServerIsOneLineThatSaysWhatToRun(t *testing.T) {
	root := t.TempDir()
	install(t, root, "13.4")
	search(t, filepath.Join(root, "*", "bin"))
	_, err := pgserver.Start(t.Context(), pgserver.Options{})
	require.ErrorIs(t, err, pgserver.ErrNotInstalled)
	require.ErrorContains(t, err, "install")
	require.ErrorContains(t, err, pgserver.EnvBin)
	require.NotContains(t, err.Error(), "\n")
}

func TestNamedDirectoryEndsTheSearch(t *testing.T) {
	root := t.TempDir()
	old := install(t, root, "14.1")
	install(t, root, "17.1")
	search(t, filepath.Join(root, "*", "bin"))
	t.Setenv(pgserver.EnvBin, old)
	found, err := pgserver.Find(t.Context())
	require.NoError(t, err)
	require.Equal(t, old, found.Dir)

	for _, bad := range []string{filepath.Join(root, "nowhere"), install(t, root, "13.9")} {
		t.Setenv(pgserver.EnvBin, bad)
		_, err = pgserver.Find(t.Context())
		require.ErrorContains(t, err, bad)
		require.NotErrorIs(t, err, pgserver.ErrNotInstalled)
	}
}

func TestParseMajor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": 15,
		"postgres (PostgreSQL) 18beta1":                        18,
		"postgres (PostgreSQL) 19devel":                        19,
		"postgres (PostgreSQL) 9.6.24":                         9,
	} {
		got, err := pgserver.ParseMajor(text)
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "postgres", "15.18", "postgres (PostgreSQL) devel", strings.Repeat("x", 1000)} {
		_, err := pgserver.ParseMajor(text)
		require.Error(t, err, text)
	}
}

func FuzzParseMajor(f *testing.F) {
	f.Add("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")
	f.Add("postgres (PostgreSQL) 99999999999999999999")
	f.Fuzz(func(t *testing.T, text string) {
		major, err := pgserver.ParseMajor(text)
		if err == nil {
			require.Contains(t, text, fmt.Sprint(major))
		}
	})
}
