package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
)

// numberV2 is the next version of numberV1.
type numberV2 struct {
	Number int `json:"number"`
}

var counted2 = envelope.MustEvent(envelope.EventSpec{
	Service: subject.Maskin, Entity: "counter", Verb: "raised", Version: 2,
}, envelope.Upcast(counted, func(old numberV1) (numberV2, error) { return numberV2{old.N}, nil }))

// The sender was rolled out before a reader in order. The key waits at the message
// of the new version; the reader's new release takes it by the replay, and then the
// older ones behind it, carried forward.
func TestAHeldKeyKeepsItsOrderOverAVersion(t *testing.T) {
	t.Parallel()
	h := setupHeld(t)
	first := h.start(t)
	h.send(t, draft(t, counted2.New("a", numberV2{1})))
	h.count(t, "a", 2, 3)
	h.count(t, "b", 1, 2)
	id := h.letter(t)
	h.awaitEffects(t, "b", 1, 2)
	h.settled(t)
	require.Empty(t, h.effects("a"))
	letter, err := h.queue.Show(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, envelope.ClassDecode, letter.Class)
	require.NoError(t, first.stop())

	c, err := consumer.New(h.js, h.queue, h.ordered(func(c *consumer.Config) { c.Order.HoldKey = true }),
		inbox.On(h.in, counted2, func(ctx context.Context, tx pgx.Tx, m envelope.Received[numberV2]) error {
			_, err := tx.Exec(ctx, insertEffect, m.Envelope.Subject, m.Data.Number, m.Envelope.ID)
			return err
		}))
	require.NoError(t, err)
	c.SetGlance(20 * time.Millisecond)
	start(t, c)
	h.count(t, "a", 4)
	h.replay(t, id)
	h.awaitEffects(t, "a", 1, 2, 3, 4)
	h.state(t, id, dlq.StateResolved)
	h.settled(t)
}
