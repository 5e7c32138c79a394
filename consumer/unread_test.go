package consumer_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/topology"
)

// shortLived is a stream that keeps messages for a few seconds only.
func shortLived(c *topology.Consumer) {
	c.Stream.MaxAge, c.Stream.Duplicates = 16*time.Second, time.Second
}

// looking has a consumer look often.
func looking(t *testing.T, b *bundle, log *book) *consumer.Consumer {
	t.Helper()
	c := b.new(t, b.config(log.config(), func(c *consumer.Config) {
		c.MassFailure, c.MaxAttempts, c.RetryMax = -1, 1000, time.Second
	}), handle(func(_ context.Context, m received) error {
		if m.Data.Hostname == "stuck" {
			return errBroken
		}
		return nil
	}))
	c.LookEvery(20 * time.Millisecond)
	start(t, c)
	return c
}

// A row of docs/DELIVERY.md: the alarm rings when the oldest unread message has half
// of its stream's age, and not before, and is over when it is handled or gone.
func TestAlarmRingsAtHalfTheAgeOfTheOldestUnreadMessage(t *testing.T) {
	t.Parallel()
	b, log := setup(t, shortLived), &book{}
	c := looking(t, b, log)
	b.publish(t, "stuck")
	b.publish(t, "a", "b") // what is settled behind it changes nothing
	stuck, err := b.js.Stream(t.Context(), b.declared.Stream.Name)
	require.NoError(t, err)
	first, err := stuck.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.NoError(t, c.Alarm())
	require.Eventually(t, func() bool { return c.Alarm() != nil }, soon, tick)
	require.GreaterOrEqual(t, time.Since(first.Time), 7*time.Second)
	alarm, ok := errors.AsType[*consumer.UnreadAgeError](c.Alarm())
	require.True(t, ok)
	require.EqualValues(t, 1, alarm.Sequence)
	require.Equal(t, b.declared.Durable, alarm.Durable)
	require.Equal(t, 16*time.Second, alarm.Limit)
	require.NoError(t, c.Ready(), "it is no readiness")
	rung := log.lines("half of the age")
	require.Len(t, rung, 1, "one line, not one per look")
	require.Contains(t, rung[0], "correlation_id="+first.Header.Get("X-Correlation-Id"))

	require.NoError(t, stuck.DeleteMsg(t.Context(), 1))
	require.Eventually(t, func() bool { return c.Alarm() == nil }, soon, tick)
	require.Len(t, log.lines("younger again"), 1)
}

// What nobody has fetched yet counts as much as what is being tried.
func TestUnreadAgeIsThatOfTheFirstMessageTheDurableReads(t *testing.T) {
	t.Parallel()
	b, log := setup(t), &book{}
	c := looking(t, b, log)
	require.Eventually(t, func() bool { return c.SeenUnread() == 0 }, soon, tick, "nothing is unread")
	b.publish(t, "a")
	b.settled(t)
	b.publish(t, "stuck")
	require.Eventually(t, func() bool { return c.SeenUnread() == 2 }, soon, tick)
	require.NoError(t, c.Alarm())
	require.Empty(t, log.lines("no telling"))
}
