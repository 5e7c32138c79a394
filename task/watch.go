package task

import (
	"context"
	"sync"
	"time"
)

// watch looks after the task while its handler runs, until the function that it
// returns is called, which waits for what is under way. Before that there is at most
// one publication of progress and one look for a request to cancel in an interval.
func (run *Run) watch(ctx context.Context) (stop func()) {
	// A stop of the service lets handlers finish; so it does us.
	ctx = context.WithoutCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		run.loop(ctx)
	}()
	return sync.OnceFunc(func() {
		close(run.quit)
		<-done
	})
}

// loop reports the start as soon as the handler is called, that is when the inbox has
// let the command through. It is not the handler that does it, who would wait for a
// second connection while it holds one.
func (run *Run) loop(ctx context.Context) {
	tick := time.NewTicker(run.r.interval)
	defer tick.Stop()
	begun := run.begun
	var changed chan struct{} // nil while it is too early for more
	for {
		select {
		case <-run.quit:
			return
		case <-begun:
			run.publish(ctx)
			begun, changed = nil, run.changed
		case <-changed:
			run.publish(ctx, step{verb: VerbProgress})
			changed = nil
			tick.Reset(run.r.interval)
		case <-tick.C:
			if begun == nil {
				changed = run.changed
			}
			run.look(ctx)
		}
	}
}

// publish reports the start if that is not done, and what else there is. What could
// not be reported is tried again.
func (run *Run) publish(ctx context.Context, steps ...step) {
	ctx, done := context.WithTimeout(ctx, endTimeout)
	defer done()
	if err := run.report(ctx, run.mine(steps...)); err != nil {
		run.complain("its progress", err)
		run.wake()
	}
}

// look ends the handler's ctx if somebody asked to cancel.
func (run *Run) look(ctx context.Context) {
	if run.cancelled() != nil {
		return
	}
	ctx, done := context.WithTimeout(ctx, endTimeout)
	defer done()
	_, request, err := run.r.look(ctx, run.about.id)
	if err != nil {
		run.r.log.Warn("task: could not look for a request to cancel", "task", run.about.id, "error", oneLine(err.Error(), maxError))
	}
	if request == nil {
		return
	}
	run.set(func() {
		run.request = &CancelError{run.about.id, *request}
		if run.cancel != nil {
			run.cancel(run.request)
		}
	})
}

// complain logs what could not be done for a task, if anything.
func (run *Run) complain(about string, err error) {
	if err != nil {
		run.r.log.Warn("task: could not report "+about, "task", run.about.id, "error", oneLine(err.Error(), maxError))
	}
}
