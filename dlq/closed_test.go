package dlq_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

func (b *bundle) closed(t *testing.T, q *dlq.Queue, id string) bool {
	t.Helper()
	closed, err := q.Closed(t.Context(), id)
	require.NoError(t, err)
	return closed
}

// A key that waits for a letter must not wait for ever because the letter was
// closed and removed while nobody looked.
func TestClosedLetterStaysClosedWhenItIsPurged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id, other := b.bury(t, failed(t)), b.bury(t, failed(t))
	watching := b.open(t, dlq.Config{})
	require.False(t, b.closed(t, watching, id))
	_, err := b.queue.Discard(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.True(t, b.closed(t, watching, id))
	b.purge(t, old)
	require.True(t, b.closed(t, watching, id), "it was seen before")
	require.True(t, b.closed(t, b.open(t, dlq.Config{}), id), "it was never seen")
	require.False(t, b.closed(t, watching, other))
}

// A letter that cannot be read is open, and no reason to ask in vain for ever.
func TestDamagedLetterIsOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	h := dlq.LetterHeader(f, 0)
	h[dlq.HeaderAttempts] = []string{"many"}
	_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: "dv.plattform.dlq." + f.Subject, Header: nats.Header(h), Data: f.Data})
	require.NoError(t, err)
	require.False(t, b.closed(t, b.queue, h.Get(envelope.HeaderLetterID)))
}
