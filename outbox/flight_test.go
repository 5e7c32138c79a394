package outbox

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func passNone(*row) bool { return false }

// The ordering rule of the relay, against every outcome a broker can produce
// and across pages: of one key at most one row is out, and its rows are first
// stored in order. What is held is never sent, and pages arrive in order.
func TestFlightNeverSendsAFollowerBeforeItsPredecessorIsDone(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			playFlight(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

// flightGame is a flight with what a broker could know of it.
type flightGame struct {
	*testing.T
	rnd    *rand.Rand
	f      *flight
	seq    int64            // of the row that joined last
	stored map[string]int64 // key → seq of its row that was stored last
	held   map[string]int64 // key → seq from which its rows are held
	out    map[string]int64 // key → number of its row that is out
	left   []int64          // seq at the end of each page that is under way
}

func playFlight(t *testing.T, rnd *rand.Rand) {
	g := &flightGame{T: t, rnd: rnd, f: newFlight(rnd.Int64N(1000), 0),
		stored: map[string]int64{}, held: map[string]int64{}, out: map[string]int64{}}
	for pages := 1 + rnd.IntN(6); pages > 0 || g.f.left > 0; {
		if pages > 0 && rnd.IntN(10) == 0 {
			pages--
			g.join()
		}
		g.send()
		g.answer()
		g.leave()
	}
	g.leave()
	require.Empty(t, g.f.pages)
	require.Empty(t, g.f.slots)
	require.Empty(t, g.f.tails)
	require.Zero(t, g.f.pending)
}

func (g *flightGame) join() {
	rows := make([]row, 1+g.rnd.IntN(30))
	for i := range rows {
		g.seq++
		rows[i] = row{seq: g.seq, key: fmt.Sprint(g.rnd.IntN(6))}
	}
	g.left = append(g.left, g.seq)
	g.f.join(page{rows: rows}, func(r *row) bool {
		from, held := g.held[r.key]
		return held && r.seq >= from
	})
}

func (g *flightGame) send() {
	number, ok := g.f.pop()
	if !ok {
		return
	}
	r := g.f.at(number).row
	_, busy := g.out[r.key]
	require.False(g, busy, "a second row of key %s was sent", r.key)
	require.Greater(g, r.seq, g.stored[r.key], "sent again after a follower")
	if from, held := g.held[r.key]; held {
		require.Less(g, r.seq, from, "a held row was sent")
	}
	if g.rnd.IntN(4) == 0 {
		g.f.failed(number) // not sent at all, as while disconnected
		return
	}
	g.f.sent(number, time.Now())
	g.out[r.key] = number
}

func (g *flightGame) answer() {
	for key, number := range g.out {
		switch g.rnd.IntN(40) {
		default: // none yet
			continue
		case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9:
			seq := g.f.at(number).seq
			require.Greater(g, seq, g.stored[key])
			g.stored[key] = seq
			g.f.stored(number, uint64(seq), false)
			g.f.stored(number, uint64(seq), false) // a late second answer changes nothing
		case 10, 11, 12, 13, 14, 15:
			g.f.failed(number)
		case 16:
			g.held[key] = g.f.at(number).seq
			g.f.hold(number)
		}
		delete(g.out, key)
	}
}

func (g *flightGame) leave() {
	for page := g.f.leave(); page != nil; page = g.f.leave() {
		require.Equal(g, g.left[0], page.last, "pages do not arrive in order")
		g.left = g.left[1:]
	}
}

// A resend that a late answer of the first attempt overtakes must not be sent.
func TestFlightTakesALateAnswerForTheResend(t *testing.T) {
	t.Parallel()
	f := newFlight(0, 0)
	f.join(page{rows: []row{{seq: 1, key: "a"}, {seq: 2, key: "a"}}}, passNone)
	number, _ := f.pop()
	f.sent(number, time.Now())
	f.failAll()
	f.stored(number, 7, false)
	next, ok := f.pop()
	require.True(t, ok)
	require.EqualValues(t, 1, next, "the stored row was offered again")
}

// A resent row must wait its full time: the age of its first attempt is gone.
func TestFlightCountsTheAgeOfTheLatestAttempt(t *testing.T) {
	t.Parallel()
	f := newFlight(0, 0)
	f.join(page{rows: []row{{seq: 1, key: "a"}}}, passNone)
	first := time.Now()
	number, _ := f.pop()
	f.sent(number, first)
	f.failed(number)
	number, _ = f.pop()
	f.sent(number, first.Add(time.Second))
	require.Zero(t, f.failOlder(first.Add(1)), "the second attempt was blamed for the first")
	require.Equal(t, 1, f.failOlder(first.Add(time.Second+1)))
}
