package natsconn_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/natsconn"
)

var errOwn = errors.New("the function's own error")

func TestDoBoundsACallWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), RequestTimeout: 30 * time.Millisecond})
	err := conn.Do(t.Context(), func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "30ms (Config.RequestTimeout)")
}

func TestDoReturnsTheFunctionsResult(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url()})
	require.NoError(t, conn.Do(t.Context(), func(context.Context) error { return nil }))
	require.Equal(t, errOwn, conn.Do(t.Context(), func(context.Context) error { return errOwn }))
}

func TestDoOpensTheBreakerWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{
		URL: b.url(), Logger: new(logBook).logger(),
		Breaker: natsconn.Breaker{Failures: 3, CoolDown: 20 * time.Millisecond},
	})
	calls := 0
	ask := func(ctx context.Context) error {
		calls++
		_, err := conn.JetStream().AccountInfo(ctx)
		return err
	}
	require.NoError(t, conn.Do(t.Context(), ask))
	b.stop()
	awaitNotReady(t, conn)
	calls = 0
	for range 3 {
		require.NotErrorIs(t, conn.Do(t.Context(), ask), natsconn.ErrBreakerOpen)
	}
	err := conn.Do(t.Context(), ask)
	require.ErrorIs(t, err, natsconn.ErrBreakerOpen)
	require.Equal(t, 3, calls, "the fourth call was not made")
	open, ok := errors.AsType[*natsconn.BreakerOpenError](err)
	require.True(t, ok)
	require.Equal(t, 3, open.Failures)
	require.Positive(t, open.RetryAfter)
	b.start(t)
	require.Eventually(t, func() bool { return conn.Do(t.Context(), ask) == nil }, eventually, 5*time.Millisecond)
}

// A function that panics must not leave the breaker without its probe.
func TestDoSurvivesAPanic(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{
		URL: b.url(), Logger: new(logBook).logger(),
		Breaker: natsconn.Breaker{Failures: 1, CoolDown: time.Nanosecond},
	})
	require.ErrorIs(t, conn.Do(t.Context(), func(context.Context) error { return nats.ErrTimeout }), nats.ErrTimeout)
	require.Panics(t, func() { _ = conn.Do(t.Context(), func(context.Context) error { panic("half-open probe") }) })
	require.NoError(t, conn.Do(t.Context(), func(context.Context) error { return nil }))
}

func TestWhatCountsAsNoAnswer(t *testing.T) {
	t.Parallel()
	alive := t.Context()
	cancelled, cancel := context.WithCancel(alive)
	cancel()
	api := func(status int) error { return &jetstream.APIError{Code: status} }
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"success", alive, nil, "answered"},
		{"success for a caller who is gone", cancelled, nil, "answered"},
		{"not found is an answer", alive, jetstream.ErrStreamNotFound, "answered"},
		{"refused is an answer", alive, api(400), "answered"},
		{"internal error is an answer", alive, api(500), "answered"},
		{"no leader", alive, api(503), "unanswered"},
		{"JetStream is off", alive, jetstream.ErrJetStreamNotEnabled, "unanswered"},
		{"no stream took it", alive, jetstream.ErrNoStreamResponse, "unanswered"},
		{"deadline", alive, fmt.Errorf("x: %w", context.DeadlineExceeded), "unanswered"},
		{"client timeout", alive, nats.ErrTimeout, "unanswered"},
		{"not connected", alive, nats.ErrReconnectBufExceeded, "unanswered"},
		{"connection lost", alive, nats.ErrDisconnected, "unanswered"},
		{"no responders", alive, nats.ErrNoResponders, "unanswered"},
		{"caller gave up", cancelled, context.Canceled, "unclear"},
		{"caller gave up, other text", cancelled, nats.ErrTimeout, "unclear"},
		{"error of the function", alive, errOwn, "unclear"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, natsconn.Judged(c.ctx, c.err))
		})
	}
}
