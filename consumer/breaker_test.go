package consumer_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
)

// When everything fails the backlog stays where it is: a handful of messages is
// spent, and the rest is handled when the cause is gone.
func TestMassFailureDoesNotMoveTheBacklogToTheDeadLetters(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"transient": errBroken, "permanent": envelope.Permanent(errBroken)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var mended atomic.Bool
			r := b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.Concurrency, c.MaxAttempts = 5, 4, 3 }),
				handle(func(context.Context, received) error {
					if mended.Load() {
						return nil
					}
					return failure
				}))
			b.publish(t, numbered(300)...)
			require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick, "Ready does not tell of it")
			require.ErrorContains(t, r.Ready(), "one at a time")
			require.ErrorIs(t, r.Ready(), errBroken)
			mended.Store(true)
			b.settled(t)
			require.NoError(t, r.Ready())
			require.LessOrEqual(t, len(b.graves.all()), 5+4+2, "the backlog went to the dead letters")
		})
	}
}

// A few bad messages among good ones are what dead letters are for.
func TestBadMessagesAmongGoodOnesDoNotSlowTheConsumerDown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var slowed atomic.Bool
	var r *running
	r = b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.Concurrency, c.MaxAttempts = 5, 1, 4 }),
		handle(func(_ context.Context, m received) error {
			if r != nil && r.Ready() != nil {
				slowed.Store(true)
			}
			if m.Data.Hostname[0] == 'b' {
				return errBroken
			}
			return nil
		}))
	for i, name := range numbered(40) {
		if b.publish(t, name); i%10 == 0 {
			b.publish(t, "bad"+name)
		}
	}
	b.settled(t)
	require.Len(t, b.graves.all(), 4)
	require.False(t, slowed.Load())
}

// One bad message alone is never taken for a mass failure, however often it
// fails: it must become a dead letter.
func TestOneBadMessageAloneIsNoMassFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.MaxAttempts = 2, 15 }),
		handle(func(context.Context, received) error { return errBroken }))
	b.publish(t, "bad")
	b.graves.await(t, 1)
	require.NoError(t, r.Ready())
}

// What was fetched before the breaker opened fails after it, all at once. None of
// that is a probe: fifteen of them made the first probe come after half a minute.
func TestStragglersDoNotKeepTheBreakerOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var all sync.WaitGroup
	all.Add(20)
	var mended atomic.Bool
	b.publish(t, numbered(40)...)
	r := b.run(t, b.config(func(c *consumer.Config) { c.MassFailure, c.Concurrency = 5, 20 }),
		handle(func(context.Context, received) error {
			if mended.Load() {
				return nil
			}
			all.Done()
			all.Wait()
			mended.Store(true)
			return errBroken
		}))
	b.settled(t)
	require.NoError(t, r.Ready())
	require.EqualValues(t, 20, r.Stats().Retried)
}
