package consumer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
)

// delaying delays the first start of the messages that wish says.
func delaying(wish func(key string, n int) time.Duration) func(context.Context, envelope.Received[numberV1]) error {
	return func(_ context.Context, m envelope.Received[numberV1]) error {
		if d := wish(m.Envelope.Subject, m.Data.N); d > 0 && m.Attempt == 1 {
			return envelope.RetryAfter(d, errBroken)
		}
		return nil
	}
}

// parkSoon parks what is delayed by more than 10 ms, however much fails.
func parkSoon(c *consumer.Config) { c.ParkAfter, c.MassFailure = 10*time.Millisecond, -1 }

// Many keys, random delays, and an active instance that is replaced again and
// again.
//
// A row of docs/DELIVERY.md.
func TestOrderSurvivesLongDelaysAndTakeOvers(t *testing.T) {
	t.Parallel()
	const keys, each = 20, 15
	l := setupLedger(t)
	var mu sync.Mutex
	delayed := map[string]bool{}
	route := l.apply(delaying(func(key string, n int) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		id := fmt.Sprint(key, n)
		if seen := delayed[id]; seen || rand.IntN(4) > 0 {
			return 0
		}
		delayed[id] = true
		return time.Duration(20+rand.IntN(200)) * time.Millisecond
	}))
	active := l.run(t, l.ordered(parkSoon), route)
	l.publishKeys(t, keys, each)
	for _, share := range []int{4, 2} {
		require.Eventually(t, func() bool { return rowsInEffect(t, l) >= keys*each/share }, 3*soon, tick)
		require.NoError(t, active.stop())
		active = l.run(t, l.ordered(parkSoon), route)
	}
	require.Eventually(t, func() bool { return rowsInEffect(t, l) == keys*each }, 3*soon, tick)
	l.requireOrder(t, keys, each)
	require.Zero(t, rowsOf(t, l.pool, "inbox_parked"))
	l.settled(t)
	require.Empty(t, l.graves.all())
}

func rowsInEffect(t *testing.T, l *ledger) (n int) {
	t.Helper()
	require.NoError(t, l.pool.QueryRow(t.Context(), `select count(*) from effect`).Scan(&n))
	return n
}
