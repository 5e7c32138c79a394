package consumer_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
)

func TestHeartbeatBeatsUntilStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		beats := 0
		h := consumer.StartHeartbeat(time.Second, func() { beats++ })
		pass(3500 * time.Millisecond)
		h.Stop()
		require.Equal(t, 3, beats)
		pass(time.Minute)
		require.Equal(t, 3, beats)
		h.Stop() // again
	})
}

func TestMutedHeartbeatComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		beats := 0
		h := consumer.StartHeartbeat(time.Second, func() { beats++ })
		defer h.Stop()
		ended, cancel := context.WithCancel(t.Context())
		h.Follow(ended)
		pass(1500 * time.Millisecond)
		require.Equal(t, 1, beats)
		cancel()
		pass(10 * time.Second)
		require.Equal(t, 1, beats)
		h.Unfollow()
		pass(time.Second)
		require.Equal(t, 2, beats)
	})
}

// pass lets the bubble's time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
