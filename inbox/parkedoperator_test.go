package inbox_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/inbox"
)

func (b *bundle) list(t *testing.T, filter inbox.ParkedFilter) []inbox.Parked {
	t.Helper()
	all, err := inbox.ListParked(t.Context(), b.pool, "", filter)
	require.NoError(t, err)
	return all
}

func TestOperatorSeesWhatIsParkedAndInWhichState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	waiting, due, taken := parked("a", 1), parked("b", 2), parked("c", 3)
	waiting.LetterID = letter
	require.NoError(t, b.in.Park(t.Context(), taken, 0))
	b.claim(t, time.Minute, false)
	require.NoError(t, b.in.Park(t.Context(), waiting, time.Hour))
	require.NoError(t, b.in.Park(t.Context(), due, 0))
	all := b.list(t, inbox.ParkedFilter{})
	require.Len(t, all, 3)
	require.Equal(t, []inbox.ParkedState{inbox.ParkedDue, inbox.ParkedHandled, inbox.ParkedWaiting},
		[]inbox.ParkedState{all[0].State, all[1].State, all[2].State})
	got := all[2]
	require.InDelta(t, time.Hour, got.DueAt.Sub(got.ParkedAt), float64(time.Second))
	got.DueAt, got.ParkedAt = time.Time{}, time.Time{}
	require.Equal(t, inbox.Parked{
		Consumer: "plattform__servers", Durable: byDurable, Source: "maskin", ID: waiting.MessageID, LetterID: letter, Key: "a",
		Stream: "DV_MASKIN_EVT", Sequence: 1, Subject: waiting.Subject, Size: 3, State: inbox.ParkedWaiting, Attempts: 1, Error: "broken \uFFFD \uFFFD",
	}, got)
	for _, filter := range []inbox.ParkedFilter{{Key: "b"}, {ID: due.MessageID}, {Limit: 1}} {
		one := b.list(t, filter)
		require.Len(t, one, 1)
		require.Equal(t, due.MessageID, one[0].ID)
	}
	require.Empty(t, b.list(t, inbox.ParkedFilter{Consumer: "other"}))
	require.Empty(t, b.list(t, inbox.ParkedFilter{Durable: "other"}))

	headers, data, err := inbox.ParkedMessage(t.Context(), b.pool, "", got)
	require.NoError(t, err)
	require.Equal(t, []string{"A: 1", "A: \xff", "Dv-Type: x"}, headers)
	require.Equal(t, waiting.Data, data)
	got.Source = "objekt"
	_, _, err = inbox.ParkedMessage(t.Context(), b.pool, "", got)
	require.ErrorIs(t, err, inbox.ErrNotParked)
}

func TestReleasedMessageIsDueAndTellsWhoWantedIt(t *testing.T) {
	t.Parallel()
	b, p, other := setup(t), parked("a", 1), parked("b", 2)
	require.NoError(t, b.in.Park(t.Context(), p, time.Hour))
	require.NoError(t, b.in.Park(t.Context(), other, time.Hour))
	release := func(filter inbox.ParkedFilter) (int64, error) {
		return inbox.ReleaseParked(t.Context(), b.pool, "", filter, "operator:ola", "DV-412")
	}
	n, err := release(inbox.ParkedFilter{ID: p.MessageID})
	require.NoError(t, err)
	require.Equal(t, int64(1), n)
	_, err = release(inbox.ParkedFilter{ID: p.MessageID})
	require.ErrorIs(t, err, inbox.ErrNothingToRelease)
	due := b.claim(t, time.Minute, false)
	require.Len(t, due, 1)
	require.Equal(t, []string{p.MessageID, "operator:ola", "DV-412"}, []string{due[0].MessageID, due[0].ReleasedBy, due[0].ReleaseReason})
	_, err = release(inbox.ParkedFilter{ID: p.MessageID})
	require.ErrorIs(t, err, inbox.ErrNothingToRelease, "it is being handled")
	require.NoError(t, b.in.ReturnParked(t.Context(), due[0], 0))
	require.Empty(t, b.claim(t, time.Minute, false)[0].ReleasedBy, "what was wanted was done")

	_, err = release(inbox.ParkedFilter{ID: uuid.NewString()})
	require.ErrorIs(t, err, inbox.ErrNotParked)
	n, err = release(inbox.ParkedFilter{Consumer: "plattform__servers"})
	require.NoError(t, err)
	require.Equal(t, int64(1), n)
}

func TestOperatorArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := inbox.ReleaseParked(t.Context(), nil, "Bad-", inbox.ParkedFilter{ID: "42", Limit: -1}, " ", "")
	require.Error(t, err)
	for _, part := range []string{"schema", "42", "limit", "by is empty", "reason is empty"} {
		require.ErrorContains(t, err, part)
	}
}
