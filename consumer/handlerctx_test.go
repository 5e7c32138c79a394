package consumer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
)

// What asks for the end of a handler's ctx, and in which order, must not matter.
var handlerAsks = map[string]func(context.Context){
	"nobody asked":       func(context.Context) {},
	"somebody waits":     func(ctx context.Context) { ctx.Done() },
	"somebody has asked": func(ctx context.Context) { _ = ctx.Err() },
	"there is a child":   func(ctx context.Context) { _, cancel := context.WithCancel(ctx); context.AfterFunc(ctx, cancel) },
}

func TestHandlerContextEndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	for name, ask := range handlerAsks {
		synctest.Test(t, func(t *testing.T) {
			ctx, end := consumer.HandlerContext(t.Context(), time.Now().Add(time.Second))
			defer end()
			ask(ctx)
			pass(time.Second - 1)
			require.NoError(t, ctx.Err(), name)
			require.NoError(t, context.Cause(ctx), name)
			pass(1)
			require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded, name)
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded, name)
			end()
			require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded, name)
			requireClosed(t, ctx.Done())
		})
	}
}

func TestHandlerContextEndsWithItsParent(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	for name, ask := range handlerAsks {
		synctest.Test(t, func(t *testing.T) {
			parent, stop := context.WithCancelCause(t.Context())
			ctx, end := consumer.HandlerContext(parent, time.Now().Add(time.Second))
			defer end()
			ask(ctx)
			stop(why)
			require.ErrorIs(t, ctx.Err(), context.Canceled, name)
			require.ErrorIs(t, context.Cause(ctx), why, name)
			pass(time.Minute)
			require.ErrorIs(t, ctx.Err(), context.Canceled, name)
			requireClosed(t, ctx.Done())
		})
	}
}

func TestHandlerContextIsCancelledWhenItsHandlerReturned(t *testing.T) {
	t.Parallel()
	for name, ask := range handlerAsks {
		synctest.Test(t, func(t *testing.T) {
			ctx, end := consumer.HandlerContext(t.Context(), time.Now().Add(time.Second))
			ask(ctx)
			end()
			end()
			require.ErrorIs(t, ctx.Err(), context.Canceled, name)
			require.ErrorIs(t, context.Cause(ctx), context.Canceled, name)
			pass(time.Minute)
			require.ErrorIs(t, ctx.Err(), context.Canceled, name)
			requireClosed(t, ctx.Done())
		})
	}
}

// A child hears of the end at once, and of the reason.
func TestHandlerContextEndsItsChildren(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	type key struct{}
	parent, stop := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
	ctx, end := consumer.HandlerContext(parent, time.Now().Add(time.Hour))
	defer end()
	require.Equal(t, "value", ctx.Value(key{}))
	child, cancel := context.WithTimeout(context.WithValue(ctx, key{}, "other"), time.Hour)
	defer cancel()
	require.Equal(t, "value", ctx.Value(key{}))
	stop(why)
	require.ErrorIs(t, child.Err(), context.Canceled)
	require.ErrorIs(t, context.Cause(child), why)
	requireClosed(t, child.Done())
}

func TestHandlerContextTellsTheEarlierDeadline(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ctx, end := consumer.HandlerContext(t.Context(), now.Add(time.Minute))
	defer end()
	at, ok := ctx.Deadline()
	require.True(t, ok)
	require.Equal(t, now.Add(time.Minute), at)

	parent, cancel := context.WithDeadline(t.Context(), now.Add(time.Second))
	defer cancel()
	ctx, end = consumer.HandlerContext(parent, now.Add(time.Minute))
	defer end()
	at, ok = ctx.Deadline()
	require.True(t, ok)
	require.Equal(t, now.Add(time.Second), at)
}

func requireClosed(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	default:
		require.Fail(t, "it is not done")
	}
}
