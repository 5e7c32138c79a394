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

func (run *Run) loop(ctx context.Context) {
	tick := time.NewTicker(run.r.interval)
	defer tick.Stop()
	changed := run.changed // nil while it is too early for more
	for {
		select {
		case <-run.quit:
			return
		case <-changed:
			run.publish(ctx)
			changed = nil
			tick.Reset(run.r.interval)
		case <-tick.C:
			changed = run.changed
			run.look(ctx)
		}
	}
}

// publish reports the newest progress. What could not be reported is tried again.
func (run *Run) publish(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, endTimeout)
	defer done()
	if _, err := run.r.apart(ctx, run.about, run.mine(step{verb: VerbProgress})); err != nil {
		run.complain("progress", err)
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
	request, err := run.r.cancelOf(ctx, run.about.id)
	run.complain("whether to cancel", err)
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
		run.r.log.Warn("task: could not report or learn "+about, "task", run.about.id, "error", oneLine(err.Error(), maxError))
	}
}
