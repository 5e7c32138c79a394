package dvtest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Lose is the loss of all of a site's JetStream: its servers stop, what they stored
// is gone, and empty ones start at the same addresses. Clients and the link
// reconnect within milliseconds, to streams that are no longer there.
func (s *Site) Lose(tb testing.TB) {
	tb.Helper()
	s.Stop()
	for _, node := range s.servers.Nodes() {
		require.NoError(tb, node.Wipe())
	}
	s.Restart(tb)
}
