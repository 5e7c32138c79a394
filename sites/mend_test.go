package sites_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/sites"
)

// Over a flapping link each question of the server is lost with the next cut. The pause
// between two is for a link that works: one that comes back is no reason to wait. Seen
// as a flow that was back 12.6 s after the flapping.
func TestALinkThatComesBackIsNotWaitedForAgain(t *testing.T) {
	t.Parallel()
	r, now := sites.NewResumes(), time.Now()
	for range 5 {
		require.True(t, r.Look(now, true), "the link is back")
		require.False(t, r.Look(now.Add(time.Second), true), "the server is given time to hear")
		now = now.Add(2 * time.Second)
		require.False(t, r.Look(now, false), "there is nobody to ask")
		now = now.Add(time.Second)
	}
}

func TestACopyOverALinkThatWorksIsMadeToAskLessAndLess(t *testing.T) {
	t.Parallel()
	r, now, pauses := sites.NewResumes(), time.Now(), []time.Duration{}
	for last := now; len(pauses) < 4; now = now.Add(100 * time.Millisecond) {
		if r.Look(now, true) {
			pauses, last = append(pauses, now.Sub(last)), now
		}
	}
	require.Zero(t, pauses[0])
	require.Greater(t, pauses[3], pauses[1])
	require.LessOrEqual(t, pauses[3], time.Minute)
}
