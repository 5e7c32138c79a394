package inbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/inbox"
)

// While a copy of a message is being handled nobody can tell a start that is slow
// from one that crashed. A storm of redeliveries made each of them look like a
// crash, and the message was dead before its handler had returned.
func TestStartsAreNotJudgedWhileACopyIsHandled(t *testing.T) {
	t.Parallel()
	for name, replay := range map[string]bool{"delivery": false, "replay": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, m := setup(t), newMessage()
			if replay {
				b.dead(t, m)
				m.LetterID = letter
			}
			for range 2 { // the first of them is behind an unrecorded one
				_, err := b.in.Begin(t.Context(), delivery(m, `{}`))
				require.NoError(t, err)
			}
			var judged error
			handle := func(broken error) error {
				return b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
					_, judged = b.in.Open(ctx, delivery(m, `{}`))
					return errors.Join(apply(m)(ctx, tx), broken)
				})
			}
			require.Error(t, handle(errors.New("broken")))
			require.ErrorContains(t, judged, "is being handled at this moment")
			open, err := b.in.Open(t.Context(), delivery(m, `{}`))
			require.NoError(t, err)
			require.Equal(t, 2, open, "nobody handles it any more")
			require.NoError(t, handle(nil), "the question left no claim behind")
			require.ErrorContains(t, judged, "is being handled at this moment")
			require.Equal(t, 1, b.effects(t))
		})
	}
}

func TestMalformedMessageHasNoStarts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.in.Open(t.Context(), delivery(inbox.Message{Source: "maskin", ID: "none"}, `{}`))
	require.Error(t, err)
}
