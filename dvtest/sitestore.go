package dvtest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Snapshot is what a site had stored at one moment: its streams with their
// messages, and its durables with their positions. It is good for any number of
// RollBacks, until the test ends.
type Snapshot struct {
	site *Site
	dirs []string // one for each server
}

// Snapshot copies what the site has stored. The site's servers stop meanwhile, in
// an orderly way, and run again when it returns; connections of [Site.Connect] go
// on.
func (s *Site) Snapshot(tb testing.TB) *Snapshot {
	tb.Helper()
	snapshot := &Snapshot{site: s}
	s.Stop()
	for _, node := range s.servers.Nodes() {
		dir := tb.TempDir()
		require.NoError(tb, os.CopyFS(dir, os.DirFS(node.StoreDir())))
		snapshot.dirs = append(snapshot.dirs, dir)
	}
	s.Restart(tb)
	return snapshot
}

// RollBack puts the site back to a snapshot of its own: a broker that was
// restored from a backup, or that lost what it had acknowledged. What was stored
// since is gone, and the sequences of it are given out again. The site's servers
// stop and run again; connections of [Site.Connect] go on.
func (s *Site) RollBack(tb testing.TB, to *Snapshot) {
	tb.Helper()
	require.Same(tb, s, to.site, "the snapshot is of site %s", to.site.name)
	s.Stop()
	for i, node := range s.servers.Nodes() {
		require.NoError(tb, os.RemoveAll(node.StoreDir()))
		require.NoError(tb, os.CopyFS(node.StoreDir(), os.DirFS(to.dirs[i])))
	}
	s.Restart(tb)
}
