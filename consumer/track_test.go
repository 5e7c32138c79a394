package consumer_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
)

func TestTrackTakesNothingBeforeTheReset(t *testing.T) {
	t.Parallel()
	k := consumer.NewTrack(0)
	require.Equal(t, "ignored", k.Arrive("a", 1, 10, 1))
	k.Reset("a", 0, false)
	require.Equal(t, "taken", k.Arrive("a", 1, 10, 1))
	require.Equal(t, "ignored", k.Arrive("old", 2, 11, 1), "a subscription of before")
	require.Equal(t, "taken", k.Arrive("a", 2, 11, 1))
}

// Number 3 went elsewhere: nothing behind it is taken, held messages stay, and
// after the reset each delivery is known for what it is.
func TestTrackRecognisesWhatComesAgain(t *testing.T) {
	t.Parallel()
	k := consumer.NewTrack(0)
	k.Reset("a", 0, false)
	for n := range uint64(4) {
		require.Equal(t, "taken", k.Arrive("a", n+1, 10*(n+1), 1))
	}
	k.Settle(10)
	k.Settle(30)
	require.Equal(t, "missed", k.Arrive("a", 6, 60, 1))
	require.Equal(t, "ignored", k.Arrive("a", 7, 70, 1))
	require.Equal(t, uint64(4), k.Shut())
	k.Reset("b", 70, false)
	require.Equal(t, "known", k.Arrive("b", 1, 10, 1), "its acknowledgement was lost")
	require.Equal(t, "twin", k.Arrive("b", 2, 20, 1))
	require.Equal(t, "known", k.Arrive("b", 3, 30, 1))
	require.Equal(t, "twin", k.Arrive("b", 4, 40, 1))
	require.Equal(t, "again", k.Arrive("b", 5, 50, 1), "whoever had it may have begun it")
	require.Equal(t, "again", k.Arrive("b", 6, 60, 1))
	require.Equal(t, "again", k.Arrive("b", 7, 70, 1))
	require.Equal(t, "taken", k.Arrive("b", 8, 80, 1))
}

// A number that goes back, or a server that counted less than came, is somebody
// else's reset: what they want delivered again is handled again.
func TestTrackFollowsTheResetOfSomebodyElse(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{false, true} {
		k := consumer.NewTrack(0)
		k.Reset("a", 0, false)
		for n := range uint64(3) {
			require.Equal(t, "taken", k.Arrive("a", n+1, n+1, 1))
			k.Settle(n + 1)
		}
		if !told {
			require.Equal(t, "missed", k.Arrive("a", 1, 1, 1))
		}
		k.Reset("b", 3, told)
		require.Equal(t, "again", k.Arrive("b", 1, 1, 1))
		require.Equal(t, "again", k.Arrive("b", 2, 2, 1))
	}
}

// After a reset the numbers begin anew, so they do not tell of somebody else's: the
// ack floor does.
func TestTrackTellsAForeignResetByTheAckFloor(t *testing.T) {
	t.Parallel()
	for _, idle := range []bool{false, true} {
		k := consumer.NewTrack(0)
		k.ResetAt("a", 0)
		for n := range uint64(3) {
			require.Equal(t, "taken", k.Arrive("a", n+1, n+1, 1))
			k.Settle(n + 1)
		}
		k.ResetAt("b", 3)
		if !idle {
			require.Equal(t, "missed", k.Arrive("b", 1, 2, 1), "it was acknowledged")
		}
		k.ResetAt("c", 1)
		require.Equal(t, "again", k.Arrive("c", 1, 2, 1))
		require.Equal(t, "again", k.Arrive("c", 2, 3, 1))
		require.Equal(t, "taken", k.Arrive("c", 3, 4, 1))
	}
}

func TestTrackCountsWhatCameSinceTheOldestOpenMessage(t *testing.T) {
	t.Parallel()
	k := consumer.NewTrack(5)
	k.Reset("a", 0, false)
	require.Equal(t, "again", k.Arrive("a", 1, 5, 1))
	for n := range uint64(9) {
		require.Equal(t, "taken", k.Arrive("a", n+2, n+6, 1))
		k.Settle(n + 6)
	}
	require.Equal(t, 10, k.Ahead)
	require.Equal(t, "again", k.Arrive("a", 11, 4, 2), "older than all, and not counted")
	require.Equal(t, 10, k.Ahead)
	k.Settle(5)
	require.Zero(t, k.Ahead)
	require.Equal(t, "known", k.Arrive("a", 12, 5, 2))
	require.Equal(t, "twin", k.Arrive("a", 13, 4, 3))
}

func TestTrackCountsWhatIsHeldAfterAForeignReset(t *testing.T) {
	t.Parallel()
	k := consumer.NewTrack(0)
	k.Reset("a", 0, false)
	require.Equal(t, "taken", k.Arrive("a", 1, 1, 1))
	require.Equal(t, "taken", k.Arrive("a", 2, 2, 1))
	k.Settle(2)
	k.Reset("b", 2, true)
	require.Equal(t, "twin", k.Arrive("b", 1, 1, 1))
	require.Equal(t, "again", k.Arrive("b", 2, 2, 1))
	k.Settle(2)
	require.Equal(t, 2, k.Ahead, "the first is not done")
	k.Settle(1)
	require.Zero(t, k.Ahead)
}
