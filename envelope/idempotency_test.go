package envelope_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
)

// Another system remembers the keys: they must never change, and two things that
// are asked for must never share one.
func TestIdempotencyKeyTellsMessageAndEffectApartAndNothingElse(t *testing.T) {
	t.Parallel()
	e := event(t, nil)
	first := &envelope.Delivery{Envelope: e, Durable: "plattform__from_maskin", Attempt: 1}
	replay := &envelope.Delivery{Envelope: e, Durable: "plattform__from_maskin_oslo", Attempt: 7, LetterID: "l1", Redelivered: true}
	require.Equal(t, first.IdempotencyKey("dns"), replay.IdempotencyKey("dns"))
	require.NoError(t, uuid.Validate(first.IdempotencyKey("dns")))

	seen := map[string]bool{}
	for _, parts := range [][3]string{{"maskin", "1", "dns"}, {"maskin", "1", "mail"}, {"maskin", "2", "dns"}, {"nett", "1", "dns"}, {"maskin1", "", "dns"}, {"", "maskin1", "dns"}, {"dns", "maskin", "1"}} {
		seen[envelope.IdempotencyKey(parts[0], parts[1], parts[2])] = true
	}
	require.Len(t, seen, 7)
	require.Equal(t, "04084caa-4384-517b-b61d-4036ab52ba5f", envelope.IdempotencyKey("maskin", "01936f2e-1111-7222-8333-444455556666", "plattform.welcome-mail"))
}
