package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/processed"
)

// On routes commands of type t to h like bind, which is inbox.On, and reports what
// becomes of them:
//
//	task.On(reporter, inbox.On, in, maskincommands.Provision, provision)
//
// The task is the command's: its id is the task's, whether or not its sender opened
// one. What is published, and when:
//
//	started     h is called: at once, in a transaction of its own, or where h is
//	            quicker with its end
//	progress    while h runs, see [Run.Progress]
//	succeeded   h returned nil: in its transaction, with its effect
//	queued      h returned an error or panicked, and will be called again
//	failed      the command became a dead letter: before its inbox row says so; or
//	            h called [Run.Fail] and returned nil: in its transaction
//	cancelled   somebody asked, and h had not begun or returned an error, which is
//	            rolled back and not tried again; or h called [Run.Abort]
//
// h's ctx ends when somebody asks to cancel; [FromContext] gives it the [Run].
// Otherwise h is as for bind, and so is its verdict, except that a cancelled command
// is acknowledged. A batch (inbox.OnBatch) has no tasks.
func On[I, T any](
	r *Reporter,
	bind func(I, envelope.Type[T], func(context.Context, pgx.Tx, envelope.Received[T]) error) envelope.Route,
	in I, t envelope.Type[T],
	h func(context.Context, pgx.Tx, envelope.Received[T]) error,
) envelope.Route {
	if r == nil || bind == nil || h == nil {
		return envelope.Route{Type: t.Name(), Version: t.Version()} // consumer.New refuses it by name
	}
	route := bind(in, t, func(ctx context.Context, tx pgx.Tx, m envelope.Received[T]) error {
		return FromContext(ctx).call(ctx, tx, func(ctx context.Context) error { return h(ctx, tx, m) })
	})
	if handle := route.Handle; handle != nil {
		route.Handle = func(ctx context.Context, d *envelope.Delivery) error { return r.attempt(ctx, d, handle) }
		route.OnDead = r.dead
	}
	return route
}

// attempt handles a command once.
func (r *Reporter) attempt(ctx context.Context, d *envelope.Delivery, handle func(context.Context, *envelope.Delivery) error) error {
	ctx = d.Context(ctx)
	run := newRun(r, aboutCommand(d.Envelope), d.LetterID != "")
	if err := run.prepare(ctx); err != nil {
		return err
	}
	stop := run.watch(ctx)
	err := errPanicked
	defer func() {
		if err == errPanicked { // which goes on to the consumer
			stop()
			_ = run.settle(ctx, err)
		}
	}()
	err = handle(context.WithValue(ctx, runKey{}, run), d)
	stop()
	return run.settle(ctx, err)
}

// errPanicked is the failure of an attempt whose handler did not return. What it
// panicked with is the operators' to read, in the dead letter and the log.
var errPanicked = errors.New("the handler panicked")

// prepare refuses an attempt at a task that has come to its end, and notes a request to
// cancel. That is not carried out here: the inbox knows better whether the command waits
// for a handler.
func (run *Run) prepare(ctx context.Context) error {
	state, request, err := run.r.look(ctx, run.about.id)
	switch {
	case err != nil:
		return err
	case state.Final():
		return run.over(state)
	case request != nil:
		run.request = &CancelError{run.about.id, *request}
	}
	return nil
}

// over says that the task has come to its end.
func (run *Run) over(state State) error {
	return fmt.Errorf("task: task %s is %s: %w", run.about.id, state, envelope.ErrAlreadyProcessed)
}

// dead reports that a command became a dead letter. It runs before the inbox marks
// the command dead: after a crash in between it is repeated, and behind the mark it
// would not be. A state that it cannot follow tells that it was reported already, or
// that another copy of the command came to its end.
func (r *Reporter) dead(ctx context.Context, d *envelope.Delivery, f *envelope.Failure, letterID string) error {
	return r.apart(d.Context(ctx), aboutCommand(d.Envelope), func(row runRow) []step {
		if row.state.Ended() {
			return nil
		}
		return []step{{verb: VerbFailed, say: func(e *EventV1) {
			e.Error = failureOf(f.Err)
			e.Error.Class, e.Error.LetterID = f.Class, letterID
		}}}
	})
}

// settle reports what the end of an attempt means for the task where the handler's
// transaction did not, and returns the verdict.
func (run *Run) settle(ctx context.Context, err error) error {
	if err == nil || !run.letThrough() || errors.Is(err, envelope.ErrFenced) {
		return err
	}
	run.rolledBack()
	apart, done := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer done()
	switch request := run.cancelled(); {
	case processed.Already(err): // the handler's word, or that of call
		if failed := run.report(apart, run.ends(step{verb: VerbSucceeded}, new(State))); failed != nil {
			return failed
		}
	case request != nil: // nothing of the command happened, and nothing will
		return run.report(apart, run.ends(step{verb: VerbCancelled, say: func(e *EventV1) { e.Cancel = &request.Cancel }}, new(State)))
	case envelope.IsPermanent(err): // dead tells of it
		run.complain("a start", run.report(apart, run.mine()))
	case errors.Is(ctx.Err(), context.Canceled): // it is given back, and to blame for nothing
	case run.leftOpen(): // if the commit that failed was one after all, it goes on
	default:
		run.complain("a failed attempt", run.report(apart, run.mine(step{verb: VerbQueued, say: func(e *EventV1) { e.Error = failureOf(err) }})))
	}
	return err
}
