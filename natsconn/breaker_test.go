package natsconn_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/natsconn"
)

var errSilence = errors.New("no answer")

// failTimes makes n calls that are not answered.
func failTimes(t *testing.T, b *natsconn.TestBreaker, n int) {
	t.Helper()
	for range n {
		_, fail, _, err := b.Begin()
		require.NoError(t, err)
		fail(errSilence)
	}
}

func requireOpen(t *testing.T, b *natsconn.TestBreaker) *natsconn.BreakerOpenError {
	t.Helper()
	_, _, _, err := b.Begin()
	require.ErrorIs(t, err, natsconn.ErrBreakerOpen)
	open := new(natsconn.BreakerOpenError)
	require.ErrorAs(t, err, &open)
	return open
}

func TestBreakerIsOffByDefault(t *testing.T) {
	t.Parallel()
	failTimes(t, natsconn.NewTestBreaker(natsconn.Breaker{}), 1000)
}

func TestBreakerOpensAfterFailuresInARow(t *testing.T) {
	t.Parallel()
	b := natsconn.NewTestBreaker(natsconn.Breaker{Failures: 3})
	failTimes(t, b, 2)
	answer, _, _, err := b.Begin()
	require.NoError(t, err)
	answer() // counts from zero again
	failTimes(t, b, 3)
	open := requireOpen(t, b)
	require.Equal(t, 3, open.Failures)
	require.Equal(t, errSilence, open.Err)
	require.NotErrorIs(t, open, errSilence, "this call did not fail so")
	require.Contains(t, open.Error(), "no answer")
}

func TestBreakerLetsOneCallTryAfterTheCoolDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := natsconn.NewTestBreaker(natsconn.Breaker{Failures: 1, CoolDown: time.Second})
		failTimes(t, b, 1)
		open := requireOpen(t, b)
		require.GreaterOrEqual(t, open.RetryAfter, time.Second)
		require.LessOrEqual(t, open.RetryAfter, 1500*time.Millisecond)

		<-time.After(open.RetryAfter - 1)
		requireOpen(t, b)
		<-time.After(1)
		_, fail, _, err := b.Begin()
		require.NoError(t, err, "the probe")
		requireOpen(t, b) // one at a time
		fail(errSilence)
		again := requireOpen(t, b)
		require.GreaterOrEqual(t, again.RetryAfter, time.Second, "a new cool-down")

		<-time.After(2 * time.Second)
		answer, _, _, err := b.Begin()
		require.NoError(t, err)
		answer()
		first, _, _, err := b.Begin()
		require.NoError(t, err, "closed again")
		second, _, _, err := b.Begin()
		require.NoError(t, err, "for everybody")
		first()
		second()
	})
}

func TestBreakerProbeGivenUpLetsTheNextTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := natsconn.NewTestBreaker(natsconn.Breaker{Failures: 1, CoolDown: time.Second})
		failTimes(t, b, 1)
		<-time.After(2 * time.Second)
		_, _, abandon, err := b.Begin()
		require.NoError(t, err)
		requireOpen(t, b)
		abandon()
		answer, _, _, err := b.Begin()
		require.NoError(t, err)
		answer()
	})
}

// Calls that began before the breaker opened say nothing about the broker now:
// neither may their late success close it, nor their failure prolong it.
func TestBreakerIgnoresLateResults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := natsconn.NewTestBreaker(natsconn.Breaker{Failures: 1, CoolDown: time.Second})
		lateAnswer, _, _, err := b.Begin()
		require.NoError(t, err)
		_, lateFail, _, err := b.Begin()
		require.NoError(t, err)
		failTimes(t, b, 1)
		lateAnswer()
		open := requireOpen(t, b)
		<-time.After(500 * time.Millisecond)
		lateFail(errSilence)
		require.Equal(t, open.RetryAfter-500*time.Millisecond, requireOpen(t, b).RetryAfter)
	})
}

// Replicas that lost the same broker must not all try in the same moment.
func TestBreakerCoolDownIsSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 20 {
			b := natsconn.NewTestBreaker(natsconn.Breaker{Failures: 1})
			failTimes(t, b, 1)
			wait := requireOpen(t, b).RetryAfter
			require.GreaterOrEqual(t, wait, natsconn.DefaultCoolDown)
			seen[wait] = true
		}
		require.Greater(t, len(seen), 10)
	})
}
