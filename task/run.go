package task

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// Run is one attempt at a task, as its handler sees it: [FromContext] returns it. Its
// methods do no I/O, are safe for concurrent use, and do nothing on nil, so that a
// handler runs also where nothing is reported.
type Run struct {
	r     *Reporter
	about about
	// replay says that an operator replays the command: only that moves on a task that
	// failed before there is an end to tell.
	replay bool

	begun   chan struct{} // closed when the handler is called
	changed chan struct{} // progress waits to be published
	quit    chan struct{} // closed at the end

	mu      sync.Mutex
	called  bool
	spared  bool // not called, since somebody had asked to cancel
	left    bool // open, in a transaction of which the commit is to come
	attempt int  // its number, once its start is reported; 0 before
	// tentative says that the start was reported in the handler's transaction, which
	// may be rolled back.
	tentative bool
	percent   *int
	message   string
	result    *envelope.Artifact
	failure   *FailureV1
	outcome   ending
	cancel    context.CancelCauseFunc // of the handler's ctx, once it has one
	request   *CancelError            // to cancel; nil if nobody asked
}

// ending is what a handler's nil means.
type ending uint8

const (
	endSucceeded ending = iota
	endFailed
	endCancelled
	endLater
)

// runKey is the context key of a Run.
type runKey struct{}

// FromContext returns the run of the handler whose ctx it is, nil if [On] did not
// bind it.
func FromContext(ctx context.Context) *Run {
	run, _ := ctx.Value(runKey{}).(*Run)
	return run
}

func newRun(r *Reporter, t about, replay bool) *Run {
	return &Run{r: r, about: t, replay: replay, begun: make(chan struct{}), changed: make(chan struct{}, 1), quit: make(chan struct{})}
}

// TaskID returns the task's id, "" on nil.
func (run *Run) TaskID() string {
	if run == nil {
		return ""
	}
	return run.about.id
}

// Progress says how far the attempt is: percent, 0 to 100, or negative where that is
// unknown, and a message for people, cut to 512 bytes. The first is published at
// once, then the newest once in ReporterConfig.Interval, each in a transaction of its
// own: others see it while the handler's is open. What came last is part of the
// event that ends the attempt. Call it as often as you like.
func (run *Run) Progress(percent int, message string) {
	if run == nil {
		return
	}
	run.mu.Lock()
	run.percent, run.message = percentOf(percent), oneLine(message, maxMessage)
	run.mu.Unlock()
	run.wake()
}

// wake says that there is something to publish.
func (run *Run) wake() {
	select {
	case run.changed <- struct{}{}:
	default:
	}
}

// SetResult refers to what the task made; it is published when the task succeeds.
func (run *Run) SetResult(a envelope.Artifact) {
	if run != nil {
		run.set(func() { run.result = &a })
	}
}

// Fail has the task fail when the handler returns nil: with a code for programs,
// which may be empty, and a text for people. The handler's effects are kept, nothing
// is tried again and there is no dead letter. An error that the handler returns
// outweighs it.
func (run *Run) Fail(code, text string) {
	if run != nil {
		run.set(func() { run.outcome, run.failure = endFailed, handlerFailure(code, text) })
	}
}

// Abort has the task end as cancelled when the handler returns nil, with its effects
// kept: for a handler that was asked to cancel and has cleaned up in its transaction.
// That needs a ctx that has not ended: context.WithoutCancel. Without a request it
// does nothing.
func (run *Run) Abort() {
	if run != nil {
		run.set(func() {
			if run.request != nil {
				run.outcome = endCancelled
			}
		})
	}
}

// LeaveOpen has the task go on when the handler returns nil: a later step, such as
// the handler of another message, ends it with [Reporter.Succeed] or its like. It
// stays started until then; nothing ends it by itself.
func (run *Run) LeaveOpen() {
	if run != nil {
		run.set(func() { run.outcome = endLater })
	}
}

func (run *Run) set(change func()) {
	run.mu.Lock()
	defer run.mu.Unlock()
	change()
}

// call runs the handler inside its transaction and reports its end there.
func (run *Run) call(ctx context.Context, tx pgx.Tx, h func(context.Context) error) error {
	if run == nil {
		return h(ctx)
	}
	if request := run.cancelled(); request != nil {
		run.set(func() { run.spared = true })
		return request
	}
	ctxOf, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run.arm(cancel)
	if err := h(ctxOf); err != nil {
		return err
	}
	// What was done is committed, also if ctx ended meanwhile.
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer done()
	var before State
	decide := run.ends(run.ending(), &before)
	err := run.r.record(ctx, tx, run.about, func(row runRow) []step {
		told := run.number() != 0
		steps := decide(row)
		run.set(func() { run.tentative = !told && run.attempt != 0 })
		return steps
	})
	if err != nil {
		return err
	}
	if before == StateCancelled {
		// An attempt beside this one was cancelled while this one waited for its inbox
		// row. What was said to be cancelled must not have an effect.
		return run.over(before)
	}
	run.set(func() { run.left = run.outcome == endLater })
	return nil
}

// arm notes that the handler is called, and how to end its ctx.
func (run *Run) arm(cancel context.CancelCauseFunc) {
	run.mu.Lock()
	defer run.mu.Unlock()
	if !run.called { // a bind may call its handler again
		close(run.begun)
	}
	run.called, run.cancel = true, cancel
	if run.request != nil {
		cancel(run.request)
	}
}

// letThrough reports whether the inbox let the command through.
func (run *Run) letThrough() bool {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.called || run.spared
}

func (run *Run) wasSpared() bool {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.spared
}

// leftOpen reports whether the handler left the task open, whatever became of the
// commit.
func (run *Run) leftOpen() bool {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.left
}

// cancelled returns the request to cancel, nil if nobody asked.
func (run *Run) cancelled() *CancelError {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.request
}

// ending is the step by which the handler's nil ends the attempt.
func (run *Run) ending() step {
	run.mu.Lock()
	defer run.mu.Unlock()
	switch result, failure, request := run.result, run.failure, run.request; run.outcome {
	case endFailed:
		return step{verb: VerbFailed, say: func(e *EventV1) { e.Error = failure }}
	case endCancelled:
		return step{verb: VerbCancelled, say: func(e *EventV1) { e.Cancel = &request.Cancel }}
	case endLater:
		return step{verb: VerbProgress}
	default:
		return step{verb: VerbSucceeded, say: func(e *EventV1) { e.Result = result }}
	}
}

// ends is the decision to take the last step of an attempt, unless the task has come
// to its end already. An attempt whose start was not reported is started first, unless
// it was spared, and so is a task that another attempt left in a state in which the step
// cannot follow: what the handler did counts.
func (run *Run) ends(s step, before *State) decision {
	s = run.telling(s)
	return func(row runRow) []step {
		if *before = row.state; row.state.Final() {
			return nil
		}
		if _, err := row.state.Next(s.verb, run.about.id); err != nil || run.number() == 0 && !run.wasSpared() {
			return []step{run.starts(row), s}
		}
		return []step{s}
	}
}

// mine is the decision to report on the middle of an attempt, at least its start, as
// long as no other attempt has begun and the task has not ended. Beside a dead letter a
// copy of its command is silent: the inbox refuses what comes behind the mark, so that
// nobody would say again that the task failed.
func (run *Run) mine(steps ...step) decision {
	for i, s := range steps {
		steps[i] = run.telling(s)
	}
	return func(row runRow) []step {
		switch n := run.number(); {
		case row.state.Final(), row.state == StateFailed && !run.replay:
			return nil
		case n == 0:
			return append([]step{run.starts(row)}, steps...)
		case row.state != StateStarted || row.attempt != n:
			return nil
		}
		return steps
	}
}

// starts is the step by which the attempt begins. The row is locked: whoever decides
// next, in this process too, knows of it.
func (run *Run) starts(row runRow) step {
	run.set(func() { run.attempt = row.attempt + 1 })
	return step{verb: VerbStarted}
}

// number is that of the attempt, 0 if its start was not reported.
func (run *Run) number() int {
	run.mu.Lock()
	defer run.mu.Unlock()
	return run.attempt
}

// rolledBack takes back what was reported in the handler's transaction.
func (run *Run) rolledBack() {
	run.set(func() {
		if run.tentative {
			run.attempt, run.tentative = 0, false
		}
	})
}

// report carries a decision out in a transaction of its own.
func (run *Run) report(ctx context.Context, decide decision) error {
	before := run.number()
	err := run.r.apart(ctx, run.about, decide)
	if err != nil {
		run.set(func() { run.attempt = before })
	}
	return err
}

// telling adds the newest progress to a step.
func (run *Run) telling(s step) step {
	run.mu.Lock()
	defer run.mu.Unlock()
	percent, message, say := run.percent, run.message, s.say
	s.say = func(e *EventV1) {
		e.Percent, e.Message = percent, message
		if say != nil {
			say(e)
		}
	}
	return s
}
