package outbox_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/outbox"
)

func requireRecreated(t *testing.T, b bundle, r *outbox.Relay) {
	t.Helper()
	require.Eventually(t, func() bool {
		e, ok := errors.AsType[*outbox.RecreatedError](r.Ready())
		return ok && e.Stream == events && e.Found.After(e.Recorded) && b.status(t).Recreated
	}, 20*time.Second, 5*time.Millisecond, "the relay does not say that the stream waits")
	require.ErrorContains(t, r.Ready(), "AcceptStream")
}

func TestAcceptStreamReportsAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	err := outbox.AcceptStream(t.Context(), nil, "No Schema", "", " ", "")
	for _, want := range []string{"schema", "stream is empty", "by is empty", "reason is empty"} {
		require.ErrorContains(t, err, want)
	}
	err = outbox.AcceptStream(t.Context(), dvtest.EmptyPostgres(t), "", events, "operator:ola", "why not")
	require.ErrorIs(t, err, outbox.ErrNotMigrated)
}
