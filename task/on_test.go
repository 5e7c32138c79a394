package task_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
)

func TestAHandledCommandIsATaskThatStartedAndSucceeded(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	route := w.route(func(ctx context.Context, _ pgx.Tx, m received) error {
		require.Equal(t, m.Envelope.ID, task.FromContext(ctx).TaskID())
		w.started(t, m) // others see it while the handler runs
		task.FromContext(ctx).SetResult(envelope.Artifact{ObjectID: "image-1"})
		return nil
	})
	require.NoError(t, deliver(t, route, m))
	all := events(t, w.pool, m.Envelope.ID)
	require.Equal(t, []string{"started 3", "succeeded 4"}, life(all))
	for _, e := range all {
		require.Equal(t, subject.Maskin, e.env.Source)
		require.Equal(t, []string{m.Envelope.ID, m.Envelope.ID, m.Envelope.CorrelationID, "tenant-1", "p-1"},
			[]string{e.env.Subject, e.env.CausationID, e.env.CorrelationID, e.env.TenantID, e.env.ProjectID})
		require.Equal(t, 1, e.Attempt)
		require.Equal(t, provision.Name(), e.Kind)
		require.Equal(t, "srv-1", e.Resource)
	}
	require.Equal(t, "image-1", all[1].Result.ObjectID)
	require.Equal(t, 1, w.effects(t))
}

// What is delivered again has no events: the task has ended.
func TestARepeatIsNoFurtherAttempt(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	route := w.route(succeed)
	require.NoError(t, deliver(t, route, m))
	for range 2 {
		require.ErrorIs(t, deliver(t, route, m), envelope.ErrAlreadyProcessed)
		require.ErrorIs(t, replay(t, route, m), envelope.ErrAlreadyProcessed)
	}
	bury(t, route, m, envelope.ClassPoison, errBroken) // another copy of it failed
	require.Equal(t, []string{"started 3", "succeeded 4"}, w.life(t, m.Envelope.ID))
	require.Equal(t, 1, w.effects(t))
}

func TestAFailedAttemptIsQueuedWithItsErrorAndTheNextIsCounted(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	err := deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		task.FromContext(ctx).Progress(40, "copying")
		return task.Coded("no_power", errBroken)
	}), m)
	require.ErrorIs(t, err, errBroken)
	require.EqualError(t, err, errBroken.Error(), "the verdict is the handler's error as it is")
	require.NoError(t, deliver(t, w.route(succeed), m))
	all := events(t, w.pool, m.Envelope.ID)
	last := all[len(all)-3:]
	require.Equal(t, []string{"queued", "started", "succeeded"}, []string{last[0].verb, last[1].verb, last[2].verb})
	require.Equal(t, &task.FailureV1{Code: "no_power", Text: "rack is dark"}, last[0].Error)
	require.Equal(t, 40, *last[0].Percent)
	require.Equal(t, 2, last[1].Attempt)
	require.Nil(t, last[1].Percent, "an attempt begins anew")
	require.Nil(t, last[2].Error)
	require.Equal(t, 1, w.effects(t))
}

// A shutdown is no failure: the command is given back.
func TestAnInterruptedAttemptIsNotReportedAsFailed(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	d := delivery(m)
	ctx, stop := context.WithCancel(d.Context(t.Context()))
	err := w.route(func(ctx context.Context, _ pgx.Tx, m received) error {
		w.started(t, m)
		stop()
		return ctx.Err()
	}).Handle(ctx, d)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"started 3"}, w.life(t, m.Envelope.ID))
	require.NoError(t, deliver(t, w.route(succeed), m))
	require.Equal(t, []string{"started 3", "started 4", "succeeded 5"}, w.life(t, m.Envelope.ID))
}

// The life of a poison command: failed with class, cause and letter, once; a repeat
// changes nothing; the replay moves it on.
func TestADeadCommandIsAFailedTaskAndItsReplayMovesItOn(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	bad := w.route(func(context.Context, pgx.Tx, received) error {
		return envelope.Permanent(task.Coded("no_rack", errBroken))
	})
	err := deliver(t, bad, m)
	require.True(t, envelope.IsPermanent(err))
	for range 2 { // a step is repeated after a crash
		bury(t, bad, m, envelope.ClassPoison, err)
	}
	require.NoError(t, bad.MarkDead(t.Context(), delivery(m), letter))
	all := events(t, w.pool, m.Envelope.ID)
	require.Equal(t, []string{"started 3", "failed 4"}, life(all))
	require.Equal(t, &task.FailureV1{Class: envelope.ClassPoison, Code: "no_rack", Text: "rack is dark", LetterID: letter}, all[1].Error)

	require.ErrorIs(t, deliver(t, w.route(succeed), m), envelope.ErrAlreadyProcessed)
	require.Len(t, events(t, w.pool, m.Envelope.ID), 2)

	require.NoError(t, replay(t, w.route(succeed), m))
	all = events(t, w.pool, m.Envelope.ID)
	require.Equal(t, []string{"started 3", "failed 4", "started 5", "succeeded 6"}, life(all))
	require.Nil(t, all[3].Error)
	require.Equal(t, 2, all[3].Attempt)
	require.Equal(t, 1, w.effects(t))
}

// Whatever a short handler is quicker than, the start stands before the end.
func TestAHandlerThatIsDoneAtOnceHasStarted(t *testing.T) {
	t.Parallel()
	w := setup(t, never)
	for range 20 {
		m := command(t)
		require.NoError(t, deliver(t, w.route(succeed), m))
		require.Equal(t, []string{"started 3", "succeeded 4"}, w.life(t, m.Envelope.ID))
		m = command(t)
		err := deliver(t, w.route(func(context.Context, pgx.Tx, received) error { return errBroken }), m)
		require.ErrorIs(t, err, errBroken)
		require.Equal(t, []string{"started 3", "queued 4"}, w.life(t, m.Envelope.ID))
	}
}

// The inbox lets no command through that is parked, or that another process handles:
// nobody is told of a start that is none.
func TestACommandThatTheInboxHoldsBackIsNotStarted(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	require.NoError(t, w.in.Park(t.Context(), &envelope.Parked{
		Source: m.Envelope.Source.String(), MessageID: m.Envelope.ID, Durable: "maskin__commands", Key: "srv-1",
		Stream: commands.Name, StreamCreated: time.Now(), Sequence: 1, StoredAt: time.Now(), Subject: m.Subject.String(), Data: []byte("{}"),
	}, time.Hour))
	require.ErrorIs(t, deliver(t, w.route(succeed), m), envelope.ErrAlreadyProcessed)
	require.Empty(t, w.life(t, m.Envelope.ID))
}

// A command may die before any handler began: too often killed, or too often started.
func TestACommandThatDiesUnstartedIsAFailedTask(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	bury(t, w.route(succeed), m, envelope.ClassCrash, errors.New("3 starts never ended"))
	require.Equal(t, []string{"failed 3"}, w.life(t, m.Envelope.ID))
}

// The process died between the event of the failure and the inbox's mark: the command
// comes again and is handled, and what was done counts.
func TestACommandThatIsHandledAfterItsFailureWasToldHasSucceeded(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	bury(t, w.route(succeed), m, envelope.ClassPoison, errBroken)
	require.NoError(t, deliver(t, w.route(succeed), m))
	require.Equal(t, []string{"failed 3", "started 4", "succeeded 5"}, w.life(t, m.Envelope.ID))
}

// The commit fails, so nothing has happened: success is told with the effect or not
// at all.
func TestSuccessIsNotToldOfATransactionThatDoesNotCommit(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	_, err := w.pool.Exec(t.Context(), `create table later (id int primary key deferrable initially deferred)`)
	require.NoError(t, err)
	err = deliver(t, w.route(func(ctx context.Context, tx pgx.Tx, _ received) error {
		_, err := tx.Exec(ctx, `insert into later values (1), (1)`) // noticed by the commit
		return err
	}), m)
	require.Error(t, err)
	require.Equal(t, []string{"started 3", "queued 4"}, w.life(t, m.Envelope.ID))
	require.Zero(t, w.effects(t))
}

func TestAHandlerThatFindsItsEffectThereHasSucceeded(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	err := deliver(t, w.route(func(context.Context, pgx.Tx, received) error {
		return fmt.Errorf("server exists: %w", envelope.ErrAlreadyProcessed)
	}), m)
	require.ErrorIs(t, err, envelope.ErrAlreadyProcessed)
	require.Equal(t, []string{"started 3", "succeeded 4"}, w.life(t, m.Envelope.ID))
}

// The consumer takes such an error for a failure and tries again; so must the task.
func TestAnEffectThatIsThereInPartIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	err := deliver(t, w.route(func(context.Context, pgx.Tx, received) error {
		return errors.Join(envelope.ErrAlreadyProcessed, errBroken)
	}), m)
	require.ErrorIs(t, err, errBroken)
	require.Equal(t, []string{"started 3", "queued 4"}, w.life(t, m.Envelope.ID))
}

func TestAHandlerCanFailItsTaskAndKeepItsEffects(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	require.NoError(t, deliver(t, w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		task.FromContext(ctx).Fail("quota", "no more\nservers")
		return nil
	}), m))
	all := events(t, w.pool, m.Envelope.ID)
	require.Equal(t, []string{"started 3", "failed 4"}, life(all))
	require.Equal(t, &task.FailureV1{Class: task.ClassHandler, Code: "quota", Text: "no more servers"}, all[1].Error)
	require.Equal(t, 1, w.effects(t))
	require.ErrorIs(t, deliver(t, w.route(succeed), m), envelope.ErrAlreadyProcessed)
	require.Len(t, events(t, w.pool, m.Envelope.ID), 2)
}

// A task may outlast its handler: a later step of the service ends it.
func TestATaskThatIsLeftOpenIsEndedByALaterStep(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	id := m.Envelope.ID
	route := w.route(func(ctx context.Context, _ pgx.Tx, _ received) error {
		task.FromContext(ctx).LeaveOpen()
		return nil
	})
	require.NoError(t, deliver(t, route, m))
	require.ErrorIs(t, deliver(t, route, m), envelope.ErrAlreadyProcessed)
	require.Equal(t, []string{"started 3", "progress 4"}, w.life(t, id), "a repeat is no further attempt")

	in := func(do func(context.Context, pgx.Tx) error) error {
		return pgx.BeginFunc(request(t), w.pool, func(tx pgx.Tx) error { return do(request(t), tx) })
	}
	require.NoError(t, in(func(ctx context.Context, tx pgx.Tx) error { return w.reporter.Progress(ctx, tx, id, 200, "booting") }))
	require.ErrorIs(t, deliver(t, route, m), envelope.ErrAlreadyProcessed)
	require.NoError(t, in(func(ctx context.Context, tx pgx.Tx) error {
		return w.reporter.Succeed(ctx, tx, id, &envelope.Artifact{ObjectID: "image-1"})
	}))
	all := events(t, w.pool, id)
	require.Equal(t, []string{"started 3", "progress 4", "progress 5", "succeeded 6"}, life(all))
	require.Equal(t, 100, *all[2].Percent)
	require.Equal(t, "booting", all[3].Message)
	require.Equal(t, "image-1", all[3].Result.ObjectID)

	err := in(func(ctx context.Context, tx pgx.Tx) error { return w.reporter.Fail(ctx, tx, id, "late", "too late") })
	refused, ok := errors.AsType[*task.TransitionError](err)
	require.True(t, ok)
	require.Equal(t, task.TransitionError{Task: id, From: task.StateSucceeded, To: task.VerbFailed}, *refused)
	require.Error(t, in(func(ctx context.Context, tx pgx.Tx) error { return w.reporter.Succeed(ctx, tx, "srv-1", nil) }))
}

// A route without its parts has no handler, so that consumer.New refuses it by name.
func TestARouteNeedsItsParts(t *testing.T) {
	t.Parallel()
	require.Nil(t, task.On(nil, inbox.On, nil, provision, succeed).Handle)
	require.Nil(t, task.On(new(task.Reporter), inbox.On, nil, provision, succeed).Handle)
	require.Nil(t, task.On(new(task.Reporter), inbox.On, nil, provision, nil).Handle)
	_, err := task.NewReporter(nil, nil, task.ReporterConfig{Schema: "A", Interval: -1})
	for _, want := range []string{"pool: is nil", "out: is nil", "ReporterConfig.Schema", "ReporterConfig.Interval"} {
		require.ErrorContains(t, err, want)
	}
}

// A handler runs also where nobody reports.
func TestARunThatIsNoneDoesNothing(t *testing.T) {
	t.Parallel()
	run := task.FromContext(t.Context())
	require.Nil(t, run)
	require.Empty(t, run.TaskID())
	run.Progress(1, "")
	run.SetResult(envelope.Artifact{})
	run.Fail("", "")
	run.Abort()
	run.LeaveOpen()
}

// A worker loses its database session, not its life: the command goes to another, and
// what the first still says about its attempt is not published among the second's.
func TestAnAttemptThatWasOvertakenIsSilent(t *testing.T) {
	t.Parallel()
	w, m := setup(t, tick), command(t)
	second := w.route(func(ctx context.Context, _ pgx.Tx, m received) error {
		w.started(t, m)
		for i := range 10 {
			task.FromContext(ctx).Progress(i, "second")
			require.Eventually(t, func() bool {
				all := events(t, w.pool, m.Envelope.ID)
				last := all[len(all)-1]
				return last.verb == "progress" && *last.Percent == i
			}, soon, time.Millisecond)
		}
		return nil
	})
	err := deliver(t, w.route(func(ctx context.Context, tx pgx.Tx, m received) error {
		w.started(t, m)
		var pid int
		if err := tx.QueryRow(ctx, `select pg_backend_pid()`).Scan(&pid); err != nil {
			return err
		}
		if _, err := w.pool.Exec(ctx, `select pg_terminate_backend($1)`, pid); err != nil {
			return err
		}
		chatter := make(chan struct{})
		go func() {
			defer close(chatter)
			for i := range 1000 {
				task.FromContext(ctx).Progress(i/10, "first")
				<-time.After(100 * time.Microsecond)
			}
		}()
		require.NoError(t, deliver(t, second, envelope.Message{Envelope: m.Envelope, Subject: m.Subject}))
		<-chatter
		return errBroken
	}), m)
	require.ErrorIs(t, err, errBroken)
	all := events(t, w.pool, m.Envelope.ID)
	overtaken := slices.IndexFunc(all, func(e told) bool { return e.verb == "started" && e.Attempt == 2 })
	require.Positive(t, overtaken)
	for _, e := range all[overtaken+1 : len(all)-1] {
		require.Equal(t, "progress", e.verb)
		require.Equal(t, "second", e.Message)
		require.Equal(t, 2, e.Attempt)
	}
	require.Equal(t, "succeeded", all[len(all)-1].verb)
	require.Equal(t, 1, w.effects(t))
}

// A panic is the consumer's to catch and to try again; the task says so, like any
// other failed attempt.
func TestAPanicIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	require.PanicsWithValue(t, "boom", func() {
		_ = deliver(t, w.route(func(context.Context, pgx.Tx, received) error { panic("boom") }), m)
	})
	all := events(t, w.pool, m.Envelope.ID)
	require.Equal(t, []string{"started 3", "queued 4"}, life(all))
	require.Equal(t, "the handler panicked", all[1].Error.Text)
	require.NoError(t, deliver(t, w.route(succeed), m))
	require.Equal(t, []string{"started 3", "queued 4", "started 5", "succeeded 6"}, w.life(t, m.Envelope.ID))
}

// A copy of a command runs while another becomes a dead letter. The inbox refuses
// whatever comes behind the mark, so nobody would say again that the task failed.
func TestAnAttemptThatEndsInVainBesideADeadLetterLeavesTheTaskFailed(t *testing.T) {
	t.Parallel()
	w, m := setup(t, tick), command(t)
	second := w.route(func(ctx context.Context, _ pgx.Tx, m received) error {
		task.FromContext(ctx).Progress(50, "half")
		return errBroken
	})
	bury(t, second, m, envelope.ClassPoison, errBroken) // the first copy's
	require.ErrorIs(t, deliver(t, second, m), errBroken)
	require.NoError(t, second.MarkDead(t.Context(), delivery(m), letter))
	require.ErrorIs(t, deliver(t, second, m), envelope.ErrAlreadyProcessed)
	all := events(t, w.pool, m.Envelope.ID)
	require.Equal(t, []string{"failed 3"}, life(all))
	require.Equal(t, letter, all[0].Error.LetterID)
}

// The inbox commits what a handler did that came to its end in spite of a shutdown or
// of its time; reporting it must not undo an hour's work.
func TestAHandlerThatIsDoneAfterItsContextEndedHasSucceeded(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	d := delivery(m)
	ctx, stop := context.WithCancel(d.Context(t.Context()))
	require.NoError(t, w.route(func(context.Context, pgx.Tx, received) error {
		stop()
		return nil
	}).Handle(ctx, d))
	require.Equal(t, []string{"started 3", "succeeded 4"}, w.life(t, m.Envelope.ID))
	require.Equal(t, 1, w.effects(t))
}

// A commit may be one although its answer was lost. A task that its handler left open
// goes on then, and what ends it later must find it so.
func TestATaskThatWasLeftOpenStaysSoWhenTheAnswerToTheCommitIsLost(t *testing.T) {
	t.Parallel()
	w, m := setup(t, never), command(t)
	lossy := func(in *inbox.Inbox, typ envelope.Type[provisionV1], h handler) envelope.Route {
		route := inbox.On(in, typ, h)
		handle := route.Handle
		route.Handle = func(ctx context.Context, d *envelope.Delivery) error {
			return errors.Join(handle(ctx, d), errBroken)
		}
		return route
	}
	route := task.On(w.reporter, lossy, w.in, provision, func(ctx context.Context, _ pgx.Tx, _ received) error {
		task.FromContext(ctx).LeaveOpen()
		return nil
	})
	require.ErrorIs(t, deliver(t, route, m), errBroken)
	require.Equal(t, []string{"started 3", "progress 4"}, w.life(t, m.Envelope.ID))
	require.NoError(t, pgx.BeginFunc(request(t), w.pool, func(tx pgx.Tx) error {
		return w.reporter.Succeed(request(t), tx, m.Envelope.ID, nil)
	}))
}
