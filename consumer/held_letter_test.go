package consumer_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

// The letter was discarded and purged while no instance ran: nobody can be told of
// it any more.
//
// A row of docs/DELIVERY.md.
func TestHeldKeyGoesOnWhenItsLetterWasPurged(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	first := h.start(t)
	h.count(t, "bad", 1, 2, 3)
	id := h.letter(t)
	require.NoError(t, first.stop())
	_, err := h.queue.Discard(t.Context(), id, dlq.Request{By: "operator:ola", Reason: "repaired by hand, DV-413"})
	require.NoError(t, err)
	purged, err := h.queue.Purge(t.Context(), dlq.PurgeRequest{OlderThan: 1})
	require.NoError(t, err)
	require.Equal(t, 1, purged.Letters)
	h.start(t)
	h.awaitEffects(t, "bad", 2, 3)
	h.settled(t)
	require.Zero(t, rowsOf(t, h.pool, "inbox_held_keys"))
}

// brittle is a dead-letter store that cannot tell about some letters.
type brittle struct {
	*dlq.Queue
	mu    sync.Mutex
	fates map[string]func() (bool, error)
}

func (b *brittle) Closed(_ context.Context, letter string) (bool, error) {
	b.mu.Lock()
	fate := b.fates[letter]
	b.mu.Unlock()
	if fate == nil {
		return false, nil
	}
	return fate()
}

// What is wrong about one letter holds no other key, and ends no process.
//
// A row of docs/DELIVERY.md.
func TestLettersThatCannotBeLookedAtHoldNoOtherKey(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	dead := &brittle{Queue: h.queue, fates: map[string]func() (bool, error){}}
	c, err := consumer.New(h.js, dead, h.ordered(func(c *consumer.Config) { c.Order.HoldKey = true }),
		h.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
			if m.Data.N == 1 {
				return envelope.Permanent(errBroken)
			}
			return nil
		}))
	require.NoError(t, err)
	c.SetGlance(20 * time.Millisecond)
	start(t, c)
	keys := []string{"panics", "fails", "closed1", "closed2", "closed3"}
	for _, key := range keys {
		h.count(t, key, 1, 2)
	}
	require.Eventually(t, func() bool { return rowsOf(t, h.pool, "inbox_held_keys") == len(keys) }, soon, tick)
	dead.mu.Lock()
	for l, err := range h.queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		switch l.Resource {
		case "panics":
			dead.fates[l.ID] = func() (bool, error) { panic("a letter too many") }
		case "fails":
			dead.fates[l.ID] = func() (bool, error) { return false, errBroken }
		default:
			dead.fates[l.ID] = func() (bool, error) { return true, nil }
		}
	}
	dead.mu.Unlock()
	for _, key := range keys[2:] {
		h.awaitEffects(t, key, 2)
	}
	require.Empty(t, h.effects("panics"))
	require.Empty(t, h.effects("fails"))
}
