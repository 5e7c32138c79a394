package task_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
)

// ask has the worker hear of a request to cancel, as its durable on the task events
// would.
func (w *worker) ask(t testing.TB, id, reason string) error {
	t.Helper()
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("operator:ola", "tenant-1"))
	m, err := envelope.New(ctx, subject.Sentral, task.Updated.New(id, task.EventV1{
		Cancel: &task.CancelV1{By: "operator:ola", Reason: reason},
	}))
	require.NoError(t, err)
	return deliver(t, w.reporter.Cancels(), m)
}

func TestARequestToCancelEndsTheHandlersContext(t *testing.T) {
	t.Parallel()
	w, m := setup(t, 10*time.Millisecond), command(t)
	id := m.Envelope.ID
	route := w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		require.NoError(t, w.ask(t, id, "wrong rack"))
		require.NoError(t, w.ask(t, id, "the second request counts for nothing"))
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), task.ErrCancelRequested)
		e, ok := errors.AsType[*task.CancelError](context.Cause(ctx))
		require.True(t, ok)
		require.Equal(t, task.CancelError{Task: id, Cancel: task.CancelV1{By: "operator:ola", Reason: "wrong rack"}}, *e)
		return ctx.Err()
	})
	require.NoError(t, deliver(t, route, m), "the command is done")
	all := events(t, w.pool, id)
	require.Equal(t, []string{"started 3", "cancelled 4"}, life(all))
	require.Equal(t, &task.CancelV1{By: "operator:ola", Reason: "wrong rack"}, all[1].Cancel)
	require.Zero(t, w.effects(t), "what the handler did is rolled back")

	require.ErrorIs(t, deliver(t, route, m), envelope.ErrAlreadyProcessed, "the acknowledgement was lost")
	require.ErrorIs(t, replay(t, route, m), envelope.ErrAlreadyProcessed)
	require.Len(t, events(t, w.pool, id), 2)
}

func TestATaskThatIsCancelledBeforeItBeginsHasNoHandler(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	require.NoError(t, w.ask(t, m.Envelope.ID, "wrong rack"))
	c, asked, err := w.reporter.CancelRequested(t.Context(), m.Envelope.ID)
	require.NoError(t, err)
	require.True(t, asked)
	require.Equal(t, task.CancelV1{By: "operator:ola", Reason: "wrong rack"}, c)
	route := w.route(func(context.Context, pgx.Tx, received) error { panic("must not be called") })
	require.NoError(t, deliver(t, route, m))
	require.Equal(t, []string{"cancelled 3"}, w.life(t, m.Envelope.ID))
	require.ErrorIs(t, deliver(t, route, m), envelope.ErrAlreadyProcessed)

	_, asked, err = w.reporter.CancelRequested(t.Context(), command(t).Envelope.ID)
	require.NoError(t, err)
	require.False(t, asked)
}

// A failed task whose command is replayed after somebody asked to cancel it.
func TestTheReplayOfACancelledTaskEndsIt(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	bury(t, w.route(succeed), m, envelope.ClassPoison, errBroken)
	require.NoError(t, w.ask(t, m.Envelope.ID, "no longer wanted"))
	require.NoError(t, replay(t, w.route(succeed), m))
	require.Equal(t, []string{"failed 3", "cancelled 4"}, w.life(t, m.Envelope.ID))
	require.Zero(t, w.effects(t))
}

// The request came too late: what is done is done.
func TestAHandlerThatFinishesInSpiteOfTheRequestHasSucceeded(t *testing.T) {
	t.Parallel()
	w, m := setup(t, 10*time.Millisecond), command(t)
	require.NoError(t, deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		require.NoError(t, w.ask(t, m.Envelope.ID, "wrong rack"))
		<-ctx.Done()
		return nil
	}), m))
	require.Equal(t, []string{"started 3", "succeeded 4"}, w.life(t, m.Envelope.ID))
	require.Equal(t, 1, w.effects(t))
}

func TestAHandlerCanCleanUpAndEndItsTaskAsCancelled(t *testing.T) {
	t.Parallel()
	w, m := setup(t, 10*time.Millisecond), command(t)
	require.NoError(t, deliver(t, w.route(func(ctx context.Context, tx pgx.Tx, _ received) error {
		run := task.FromContext(ctx)
		run.Abort() // nobody has asked yet: nothing happens
		require.NoError(t, w.ask(t, m.Envelope.ID, "wrong rack"))
		<-ctx.Done()
		run.Abort()
		_, err := tx.Exec(context.WithoutCancel(ctx), `update server set id = 'cleaned'`)
		return err
	}), m))
	require.Equal(t, []string{"started 3", "cancelled 4"}, w.life(t, m.Envelope.ID))
	require.Equal(t, 1, w.effects(t), "what it did to clean up is kept")
}

// An attempt waits for the inbox row of the one beside it, which is cancelled. Had the
// second an effect, a task would be said to be cancelled that was done.
func TestWhatWasSaidToBeCancelledHasNoEffect(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	id := m.Envelope.ID
	err := deliver(t, w.route(func(_ context.Context, _ pgx.Tx, m received) error {
		w.started(t, m)
		return pgx.BeginFunc(request(t), w.pool, func(tx pgx.Tx) error {
			return w.reporter.Cancelled(request(t), tx, id, task.CancelV1{Reason: "by the attempt beside"})
		})
	}), m)
	require.ErrorIs(t, err, envelope.ErrAlreadyProcessed)
	require.Equal(t, []string{"started 3", "cancelled 4"}, w.life(t, id))
	require.Zero(t, w.effects(t))
}

func TestRequestsThatMeanNoTaskAreRefused(t *testing.T) {
	t.Parallel()
	w := setup(t, never)
	require.True(t, envelope.IsPermanent(w.ask(t, "srv-1", "wrong rack")))
	other, err := envelope.New(request(t), subject.Sentral, task.Updated.New(command(t).Envelope.ID, task.EventV1{Title: "something else"}))
	require.NoError(t, err)
	require.NoError(t, deliver(t, w.reporter.Cancels(), other), "other news is none of ours")
	_, _, err = w.reporter.CancelRequested(t.Context(), "srv-1")
	require.ErrorContains(t, err, "is no task id")

	out := newOutbox(t, sentral)
	require.NoError(t, pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
		require.ErrorContains(t, task.Cancel(request(t), tx, out, "srv-1", "x"), "is no task id")
		require.ErrorContains(t, task.Cancel(request(t), tx, out, command(t).Envelope.ID, ""), "say why")
		require.ErrorContains(t, task.Cancel(request(t), tx, nil, "", ""), "the outbox is nil")
		require.ErrorContains(t, task.Cancel(t.Context(), tx, out, command(t).Envelope.ID, "x"), "Origin")
		return nil
	}))
}

// The effect of a handler that left its task open is there: a repeat of the command is
// none of its business, whoever asked to cancel.
func TestARepeatDoesNotCancelATaskThatWasLeftOpen(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	route := w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		task.FromContext(ctx).LeaveOpen()
		return nil
	})
	require.NoError(t, deliver(t, route, m))
	require.NoError(t, w.ask(t, m.Envelope.ID, "wrong rack"))
	require.ErrorIs(t, deliver(t, route, m), envelope.ErrAlreadyProcessed)
	require.Equal(t, []string{"started 3", "progress 4"}, w.life(t, m.Envelope.ID))
}

// What the handler finds done is done, and was not cancelled.
func TestAHandlerThatFindsItsEffectThereInSpiteOfTheRequestHasSucceeded(t *testing.T) {
	t.Parallel()
	w, m := setup(t, 10*time.Millisecond), command(t)
	err := deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		require.NoError(t, w.ask(t, m.Envelope.ID, "wrong rack"))
		<-ctx.Done()
		return envelope.ErrAlreadyProcessed
	}), m)
	require.ErrorIs(t, err, envelope.ErrAlreadyProcessed)
	require.Equal(t, []string{"started 3", "succeeded 4"}, w.life(t, m.Envelope.ID))
}
