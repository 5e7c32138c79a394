package dlq_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
)

func TestFollowTellsWhatBecameOfReplays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 4)
	report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: letters}, swift("ola"))
	require.NoError(t, err)
	gone := "l0000000000000000000000000000000000000000"

	var looks []int
	ends := func(f dlq.Followed) {
		looks = append(looks, len(f.Outstanding))
		switch len(looks) {
		case 1:
			require.NoError(t, b.queue.Resolve(t.Context(), letters[0], "handled"))
			b.bury(t, b.replayFailed(t, report.Outcomes[1].Replay.Sequence, "again"))
		case 2:
			_, err := b.queue.Discard(t.Context(), letters[2], again("kari"))
			require.NoError(t, err)
			require.NoError(t, b.queue.Resolve(t.Context(), letters[3], "handled"))
		}
	}
	// Another process follows as well as the one that replayed.
	f, err := b.open(t, dlq.Config{}).Follow(t.Context(), append(letters[:4:4], gone), ends)
	require.NoError(t, err)
	require.Equal(t, dlq.Followed{
		Resolved: []string{letters[0], letters[3]}, FailedAgain: []string{letters[1]},
		Outstanding: []string{}, Other: []string{gone, letters[2]},
	}, f)
	require.Equal(t, []int{4, 2, 0}, looks)
}

// Its durable may not run at all: whoever follows says how long.
func TestFollowEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	letters := b.all(t, 2)
	_, err := b.queue.ReplayAll(t.Context(), dlq.Filter{IDs: letters}, swift("ola"))
	require.NoError(t, err)
	patience := errors.New("waited long enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	f, err := b.queue.Follow(ctx, letters, func(dlq.Followed) { cancel(patience) })
	require.ErrorIs(t, err, patience)
	require.Equal(t, letters, f.Outstanding)
	_, err = b.queue.Follow(t.Context(), []string{"x"}, nil)
	require.True(t, is[*dlq.FieldError](err))
}
