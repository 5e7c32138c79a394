package outbox

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// The ordering rule of the relay, against every outcome a broker can produce:
// of one key at most one row is out, and its rows are first stored in order.
func TestFlightNeverSendsAFollowerBeforeItsPredecessorIsStored(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			playFlight(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func playFlight(t *testing.T, rnd *rand.Rand) {
	rows := make([]row, 1+rnd.IntN(60))
	for i := range rows {
		rows[i] = row{seq: int64(i + 1), key: fmt.Sprint(rnd.IntN(6))}
	}
	f := newFlight(rows)
	lastStored := map[string]int64{}
	out := map[string]int32{} // key → the row that is out
	for steps := 0; f.acked < len(rows); steps++ {
		require.Less(t, steps, 100_000, "the flight does not make progress")
		if i, ok := f.pop(); ok && rnd.IntN(4) > 0 {
			key := rows[i].key
			_, busy := out[key]
			require.False(t, busy, "a second row of key %s was sent", key)
			require.Greater(t, rows[i].seq, lastStored[key], "sent again after a follower")
			f.sent(i)
			out[key] = i
		} else if ok {
			f.failed(i) // not sent at all, as while disconnected
		}
		for key, i := range out {
			switch rnd.IntN(4) {
			case 0:
				f.stored(i, uint64(rows[i].seq))
				require.Greater(t, rows[i].seq, lastStored[key])
				lastStored[key] = rows[i].seq
				delete(out, key)
				f.stored(i, uint64(rows[i].seq)) // a late second answer changes nothing
			case 1:
				f.failed(i)
				delete(out, key)
			}
		}
	}
	require.Zero(t, f.pending)
	require.EqualValues(t, len(rows), f.high.sequence)
}

// A resend that a late answer of the first attempt overtakes must not be sent.
func TestFlightTakesALateAnswerForTheResend(t *testing.T) {
	t.Parallel()
	f := newFlight([]row{{seq: 1, key: "a"}, {seq: 2, key: "a"}})
	i, _ := f.pop()
	f.sent(i)
	f.failAll()
	f.stored(i, 7)
	next, ok := f.pop()
	require.True(t, ok)
	require.EqualValues(t, 1, next, "the stored row was offered again")
}

// A resent row must wait its full time: the age of its first attempt is gone.
func TestFlightCountsTheAgeOfTheLatestAttempt(t *testing.T) {
	t.Parallel()
	f := newFlight([]row{{seq: 1, key: "a"}})
	i, _ := f.pop()
	f.sent(i)
	first := f.sentAt[i]
	f.failed(i)
	i, _ = f.pop()
	f.sent(i)
	require.Zero(t, f.failOlder(first.Add(1)), "the second attempt was blamed for the first")
	require.Equal(t, 1, f.failOlder(f.sentAt[i].Add(1)))
}
