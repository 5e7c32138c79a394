package consumer_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
)

func TestOnlyFreeSlotsAreAskedFor(t *testing.T) {
	t.Parallel()
	g := consumer.NewGate(3)
	require.Equal(t, 3, g.Reserve(false))
	require.Zero(t, g.Reserve(false), "all slots are asked for")
	require.True(t, g.Arrive(false))
	g.Forgo(false, 2) // the request expired
	require.Equal(t, 2, g.Reserve(false), "one slot is taken")
	g.Settle()
	require.Equal(t, 1, g.Reserve(false))
}

// An idle main pull has asked for every slot. If that locked the replay pull
// out, an operator's replay would wait for half a minute.
func TestReplayPullIsNotLockedOutByAnIdleMainPull(t *testing.T) {
	t.Parallel()
	g := consumer.NewGate(1)
	require.Equal(t, 1, g.Reserve(false))
	require.Equal(t, 1, g.Reserve(true))
	require.Zero(t, g.Reserve(true), "one at a time")
	require.True(t, g.Arrive(true))
	require.Zero(t, g.Reserve(true), "the only slot is taken")
	require.True(t, g.Arrive(false), "was asked for, and waits for the slot")
	g.Settle()
	g.Settle()
	require.Equal(t, 1, g.Reserve(true))
}

func TestPausedGateAsksForNothingButReplays(t *testing.T) {
	t.Parallel()
	g := consumer.NewGate(2)
	g.Pause()
	g.Pause()
	require.Zero(t, g.Reserve(false))
	require.Equal(t, 1, g.Reserve(true))
	require.Zero(t, g.Reserve(true), "one at a time")
	g.Resume()
	require.Zero(t, g.Reserve(false))
	g.Resume()
	<-g.Wake(false)
	require.Equal(t, 2, g.Reserve(false))
}

func TestStrayIsAdoptedOnlyByAFreeWorker(t *testing.T) {
	t.Parallel()
	g := consumer.NewGate(1)
	require.True(t, g.Adopt())
	require.False(t, g.Adopt())
	g.Settle()
	g.Close()
	require.False(t, g.Adopt())
}

func TestClosedGateIsIdleWhenNothingIsTaken(t *testing.T) {
	t.Parallel()
	g := consumer.NewGate(2)
	g.Reserve(false)
	require.True(t, g.Arrive(false))
	g.Close()
	require.False(t, g.Arrive(false), "goes back untried")
	require.Zero(t, g.Reserve(false))
	select {
	case <-g.Idle():
		t.Fatal("a message is in flight")
	default:
	}
	g.Settle()
	<-g.Idle()
	g.Close() // again
}
