package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/topology"
)

// Acks go together, in the order in which they were given, and at most so many
// wait that the server still delivers.
func TestAcksGoTogetherAndAFewAtATime(t *testing.T) {
	t.Parallel()
	var sent []int
	a := consumer.NewAcks(40, time.Hour, func(n int) { sent = append(sent, n) })
	for n := range 9 {
		a.Add(n, 0)
	}
	require.Empty(t, sent)
	a.Add(9, 0)
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, sent)
	a.Add(10, 0)
	a.Flush()
	a.Flush()
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, sent)
}

// Where one message at a time may be in flight, no ack waits.
func TestAckOfTheOnlyMessageThatMayBeInFlightDoesNotWait(t *testing.T) {
	t.Parallel()
	sent := 0
	a := consumer.NewAcks(1, time.Hour, func(int) { sent++ })
	a.Add(0, 0)
	require.Equal(t, 1, sent)
}

// While no other message is in flight an ack waits for nothing.
func TestAckGoesAtOnceWhenNothingElseIsInFlight(t *testing.T) {
	t.Parallel()
	b := setup(t, slowAcks)
	c := b.new(t, b.config(), handle(func(context.Context, received) error { return nil }))
	c.SetAckDelay(time.Hour)
	start(t, c)
	b.publish(t, "a", "b", "c")
	b.settled(t)
}

// A handler that takes long does not keep the acks of others back.
func TestAckDoesNotWaitForAHandlerThatTakesLong(t *testing.T) {
	t.Parallel()
	b := setup(t, slowAcks, func(c *topology.Consumer) { c.MaxAckPending = 100 })
	finish := make(chan struct{})
	defer close(finish)
	b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		if m.Data.Hostname == "slow" {
			<-finish
		}
		return nil
	}))
	b.publish(t, "slow", "a", "b")
	require.Eventually(t, func() bool {
		info, err := b.info()
		return err == nil && info.Delivered.Stream == 3 && info.NumAckPending == 1
	}, soon, tick)
}

// Beside a handler that takes long the ack costs nothing, and does not wait.
func TestAckOfASlowHandlerDoesNotWait(t *testing.T) {
	t.Parallel()
	var sent []int
	a := consumer.NewAcks(40, time.Hour, func(n int) { sent = append(sent, n) })
	a.Add(0, time.Second)
	require.Empty(t, sent)
	a.Add(1, time.Hour)
	require.Equal(t, []int{0, 1}, sent)
}
