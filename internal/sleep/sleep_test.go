package sleep_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

func TestForWaitsThatLong(t *testing.T) {
	t.Parallel()
	began := time.Now()
	sleep.For(t.Context(), 10*time.Millisecond)
	require.GreaterOrEqual(t, time.Since(began), 10*time.Millisecond)
}

func TestForEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sleep.For(ctx, time.Hour)
	}()
	cancel()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		require.Fail(t, "it sleeps on")
	}
}
