package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// On routes commands of type t to h like bind, which is inbox.On, and reports what
// becomes of them:
//
//	task.On(reporter, inbox.On, in, maskincommands.Provision, provision)
//
// The task is the command's: its id is the task's, whether or not its sender opened
// one. What is published, and when:
//
//	started     before h is called, in a transaction of its own
//	progress    while h runs, see [Run.Progress]
//	succeeded   h returned nil: in its transaction, with its effect
//	queued      h returned an error, and will be called again
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

// attempt handles a command once, between its start and its end.
func (r *Reporter) attempt(ctx context.Context, d *envelope.Delivery, handle func(context.Context, *envelope.Delivery) error) error {
	ctx = d.Context(ctx)
	run, err := r.begin(ctx, d)
	if run == nil {
		return err
	}
	stop := run.watch(ctx)
	defer stop() // of a handler that panics, too
	err = handle(context.WithValue(ctx, runKey{}, run), d)
	stop()
	return run.settle(ctx, err)
}

// begin reports the start. It returns no run where there is nothing to do, with the
// verdict.
//
// It comes before the inbox's transaction, since what happens in there is seen only
// at its end, and since a second connection that a handler waits for while it holds
// one would let the pool's users wait for one another. So it comes before the inbox
// knows whether the message is a repeat; the state of the task tells nearly always.
func (r *Reporter) begin(ctx context.Context, d *envelope.Delivery) (*Run, error) {
	t := aboutCommand(d.Envelope)
	cancel, err := r.cancelOf(ctx, t.id)
	if err != nil {
		return nil, err
	}
	var before State
	row, err := r.apart(ctx, t, func(row *runRow) []step {
		before = row.state
		switch {
		case row.state.Final() || row.leftOpen:
			return nil // a repeat
		case row.state == StateFailed && d.LetterID == "":
			// A repeat of a dead message; or the process died before the inbox knew that
			// it is dead, and it is handled once more: then its end says so.
			return nil
		case cancel != nil:
			return []step{{verb: VerbCancelled, say: func(e *EventV1) { e.Cancel = cancel }}}
		}
		return []step{{verb: VerbStarted}}
	})
	switch {
	case err != nil:
		return nil, err
	case before.Final():
		return nil, fmt.Errorf("task: task %s is %s: %w", t.id, before, envelope.ErrAlreadyProcessed)
	case row.state == StateCancelled:
		return nil, nil
	}
	return newRun(r, t, row.attempt), nil
}

// dead reports that a command became a dead letter. It runs before the inbox marks
// the command dead: after a crash in between it is repeated, and behind the mark it
// would not be. A state that it cannot follow tells that it was reported already, or
// that another copy of the command came to its end.
func (r *Reporter) dead(ctx context.Context, d *envelope.Delivery, f *envelope.Failure, letterID string) error {
	_, err := r.apart(d.Context(ctx), aboutCommand(d.Envelope), func(row *runRow) []step {
		if row.state.Ended() {
			return nil
		}
		return []step{{verb: VerbFailed, say: func(e *EventV1) {
			e.Error = failureOf(f.Err)
			e.Error.Class, e.Error.LetterID = f.Class, letterID
		}}}
	})
	return err
}

// settle reports what the end of an attempt means for the task where the handler's
// transaction did not, and returns the verdict.
func (run *Run) settle(ctx context.Context, err error) error {
	if err == nil || !run.wasCalled() || errors.Is(err, envelope.ErrFenced) {
		return err
	}
	if cancelled := run.cancelled(); cancelled != nil {
		// Nothing of the command happened, and nothing will.
		return run.end(ctx, step{verb: VerbCancelled, say: func(e *EventV1) { e.Cancel = &cancelled.Cancel }})
	}
	switch {
	case errors.Is(err, envelope.ErrAlreadyProcessed): // the handler's word, or that of call
		if failed := run.end(ctx, step{verb: VerbSucceeded}); failed != nil {
			return failed
		}
	case envelope.IsPermanent(err): // dead tells of it
	case errors.Is(ctx.Err(), context.Canceled): // it is given back, and to blame for nothing
	default:
		run.later(ctx, err)
	}
	return err
}

// end reports the end of the task in a transaction of its own.
func (run *Run) end(ctx context.Context, s step) error {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer done()
	var before State
	_, err := run.r.apart(ctx, run.about, run.ends(s, &before))
	return err
}

// later reports that the attempt failed and another will follow. If that cannot be
// told, the next start tells as much.
func (run *Run) later(ctx context.Context, err error) {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer done()
	_, failed := run.r.apart(ctx, run.about, run.mine(step{verb: VerbQueued, say: func(e *EventV1) { e.Error = failureOf(err) }}))
	run.complain("that an attempt failed", failed)
}
