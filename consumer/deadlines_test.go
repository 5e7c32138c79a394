package consumer_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
)

func TestDeadlinesPassInTheirOrderUnlessCleared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := consumer.NewDeadlines(time.Second)
		var d [5]consumer.Deadline
		for i := range d {
			l.Set(&d[i], i)
			pass(100 * time.Millisecond)
		}
		for _, i := range []int{0, 2, 4} { // the first, one between, the last
			require.True(t, l.Clear(&d[i]))
			require.False(t, l.Clear(&d[i]))
		}
		pass(599 * time.Millisecond)
		require.Empty(t, l.Passed())
		pass(time.Millisecond)
		require.Equal(t, []int{1}, l.Passed())
		require.False(t, l.Clear(&d[1]))
		l.Set(&d[1], 1) // again
		pass(200 * time.Millisecond)
		require.Equal(t, []int{1, 3}, l.Passed())
		pass(800 * time.Millisecond)
		require.Equal(t, []int{1, 3, 1}, l.Passed())
	})
}

// What was set while another was due keeps its own time.
func TestDeadlineIsNotCutByOneThatWasCleared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := consumer.NewDeadlines(time.Second)
		var first, second consumer.Deadline
		l.Set(&first, 1)
		pass(900 * time.Millisecond)
		l.Clear(&first)
		l.Set(&second, 2)
		pass(999 * time.Millisecond)
		require.Empty(t, l.Passed())
		pass(time.Millisecond)
		require.Equal(t, []int{2}, l.Passed())
	})
}

// A list that rests keeps nothing, and goes on with what is set in it.
func TestDeadlinesGoOnAfterARest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := consumer.NewDeadlines(time.Second)
		var d [2]consumer.Deadline
		l.Rest()
		l.Set(&d[0], 0)
		l.Rest() // one is set
		pass(time.Second)
		require.Equal(t, []int{0}, l.Passed())
		l.Set(&d[0], 0)
		l.Clear(&d[0])
		l.Rest()
		l.Set(&d[1], 1)
		pass(time.Second)
		require.Equal(t, []int{0, 1}, l.Passed())
	})
}
