package sites_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/sites"
)

// The whole life of a partition. The server's own lag is 0 during it: that is why
// nobody may go by it.
func TestALinkThatIsCutIsSeenAndTheServersOwnLagLies(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	w := b.watcher(t, fast())
	a.publish(t, 20, "server")
	up := requireFlow(t, w, "it moves", func(f sites.Flow) bool { return moving(f) && !f.CaughtUp.IsZero() })
	require.Equal(t, copyAtB, up.Stream)
	require.Equal(t, events, up.Source)

	s.Cut()
	cut := time.Now()
	a.publish(t, 30, "server")
	down := requireFlow(t, w, "it is silent", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	require.False(t, down.Reachable)
	require.Contains(t, down.Err, "the link is down")
	require.Contains(t, w.Detail(), "events of maskin from dc1: silent for")
	later := requireFlow(t, w, "time goes by", func(f sites.Flow) bool { return f.Looked.Sub(f.Heard) > down.Looked.Sub(down.Heard) })
	require.Equal(t, down.CaughtUp, later.CaughtUp, "nothing is known of the origin since")
	require.WithinDuration(t, cut, later.CaughtUp, 2*time.Second)
	stream, err := b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.Zero(t, stream.CachedInfo().Sources[0].Lag, "the server says that nothing is missing: it lies")
	require.EqualValues(t, 20, stream.CachedInfo().State.Msgs)

	s.Heal()
	back := requireFlow(t, w, "it moves again", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(later.Looked) })
	require.Equal(t, sites.StateMoving, back.State)
	stream, err = b.conn.JetStream().Stream(t.Context(), copyAtB)
	require.NoError(t, err)
	require.EqualValues(t, 50, stream.CachedInfo().State.Msgs, "caught up means that all is there")
}
