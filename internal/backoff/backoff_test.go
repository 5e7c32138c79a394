package backoff_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/backoff"
)

func TestDelayGrowsToItsCap(t *testing.T) {
	t.Parallel()
	p := backoff.Policy{Initial: time.Second, Max: 5 * time.Second, Factor: 2}
	var got []time.Duration
	for failure := range 5 {
		got = append(got, p.DelayAt(failure+1, 0))
	}
	require.Equal(t, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}, got)
}

func TestJitterOnlyShortens(t *testing.T) {
	t.Parallel()
	p := backoff.Policy{Initial: time.Second, Jitter: 0.5}
	require.Equal(t, time.Second, p.DelayAt(1, 0))
	require.Equal(t, 750*time.Millisecond, p.DelayAt(1, 0.5))
}

func TestHugeFailureCountsStayBounded(t *testing.T) {
	t.Parallel()
	require.Equal(t, 30*time.Second, backoff.Policy{}.DelayAt(math.MaxInt, 0))
	require.Equal(t, 100*time.Millisecond, backoff.Policy{}.DelayAt(-3, 0))
}

func TestDelaysOfReplicasDiffer(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 20 {
		seen[backoff.Policy{}.Delay(3)] = true
	}
	require.Greater(t, len(seen), 10)
}
