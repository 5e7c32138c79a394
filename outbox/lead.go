package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

// reviseEvery is how often rows of streams without a cursor, and rows of another
// cluster, are looked for. Neither happens by itself; three statements each time
// are a sixth of what an idle relay sends.
const reviseEvery = 30 * time.Second

// term waits for the lease once, and leads while it lasts.
//
// Without a broker it does not even try: another replica may have one.
func (r *Relay) term(ctx context.Context) error {
	if !r.nc.IsConnected() {
		if r.nc.IsClosed() {
			return nats.ErrConnectionClosed
		}
		return errNoBroker
	}
	r.health.good(partBroker)
	l, err := r.acquire(ctx)
	if err != nil {
		return err
	}
	r.reached.Store(true)
	if l == nil {
		r.health.good(partDatabase)
		sleep.For(ctx, r.cfg.LeaseTTL/6)
		return nil
	}
	r.log.Info("relay leads", "term", l.term)
	r.leading.Store(true)
	err = r.leadUntil(ctx, l)
	r.leading.Store(false)
	r.health.forgetStreams()
	r.release(ctx, l)
	r.log.Info("relay no longer leads", "term", l.term, "reason", err)
	return err
}

// leadUntil leads until ctx ends, the lease or the broker is lost, or a fault
// ends the term. Work in progress outlives ctx by at most the drain timeout.
func (r *Relay) leadUntil(ctx context.Context, l *lease) error {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	unlink := context.AfterFunc(ctx, func() {
		sleep.For(work, r.cfg.DrainTimeout)
		cancel(ErrDrainTimeout)
	})
	defer unlink()

	var background sync.WaitGroup
	background.Go(func() { r.renew(work, l, cancel) })
	background.Go(func() { r.watchBroker(work, cancel) })
	d := &dispatcher{
		Relay: r, lease: l, lanes: map[string]*lane{}, woken: make(chan struct{}, 1),
		done:      make(chan outcome, 1024), // never blocks a worker that nobody waits for any more
		retention: r.newRetention(l),
	}
	background.Go(func() { d.retention.run(ctx, work) })
	if !r.out.cfg.PollOnly {
		background.Go(func() { r.listen(work, d.woken) })
	}
	err := d.run(ctx, work)
	if err != nil {
		cancel(err) // the term is over: what the workers still do cannot be recorded
	}
	err = errors.Join(err, d.drain(work))
	if cause := context.Cause(work); cause != nil {
		err = cause // the first fault, of which the others are echoes
	}
	cancel(nil)
	background.Wait()
	return err
}

// watchBroker ends the term of a leader that has been without a broker for as
// long as a lease lasts: a standby may be better off.
func (r *Relay) watchBroker(ctx context.Context, lost func(error)) {
	seen := time.Now()
	for ctx.Err() == nil {
		switch {
		case r.nc.IsClosed():
			lost(nats.ErrConnectionClosed)
			return
		case r.nc.IsConnected():
			seen = time.Now()
		case time.Since(seen) > r.cfg.LeaseTTL:
			lost(fmt.Errorf("%w for %v", errNoBroker, time.Since(seen).Round(time.Millisecond)))
			return
		}
		sleep.For(ctx, r.cfg.LeaseTTL/10)
	}
}

// dispatcher gives each stream that has news to a worker of its own, so that a
// full, missing or slow stream holds back nobody but itself.
type dispatcher struct {
	*Relay
	lease *lease
	lanes map[string]*lane
	busy  int
	done  chan outcome

	retention *retention // told what the lanes know of their streams

	woken   chan struct{} // by a notification
	knocked bool          // one came: there are new rows
	asleep  time.Time     // when we last wrote that we sleep; zero while awake
	resting time.Time     // when it was first written
	looked  time.Time     // when the latest look began
	news    time.Time     // when a poll last found something
}

// lane is one stream as the dispatcher sees it.
type lane struct {
	name  string
	busy  bool
	pipe  *pipeline
	guard guard

	recall recall

	foreign atomic.Bool // rows carry transaction ids of another cluster
	except  exceptions  // as of the latest look
	passed  bool        // rows of released keys were passed over meanwhile

	faults    int       // in a row, of asking the broker
	rewinds   int       // in a row, without what was sent again being found
	heldUntil time.Time // nothing is done before

	anchored, thinned time.Time // when the cursor was last copied, the copies thinned
}

// foreignLanes returns the lanes that are not yet rid of another cluster's ids.
func (d *dispatcher) foreignLanes() (lanes []*lane) {
	for _, l := range d.lanes {
		if l.foreign.Load() {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// outcome is what a worker reports when its stream has nothing more to do.
type outcome struct {
	lane *lane
	err  error
}

// run dispatches until stop ends; workers run under work.
func (d *dispatcher) run(stop, work context.Context) error {
	err := d.prepare(stop, work)
	ctx, cancel := context.WithCancel(work)
	var rewriting sync.WaitGroup
	defer func() {
		cancel()
		rewriting.Wait()
	}()
	if lanes := d.foreignLanes(); len(lanes) > 0 {
		rewriting.Go(func() { d.rewriteForeign(ctx, lanes) })
	}
	for revised := time.Now(); err == nil && stop.Err() == nil && work.Err() == nil; {
		if time.Since(revised) > d.reviseEvery {
			revised, err = time.Now(), d.revise(work)
		}
		if err == nil {
			err = d.dispatch(stop, work)
		}
		if err == nil {
			err = d.wait(stop, work)
		}
	}
	return err
}

// revise looks for what came since the term began.
func (d *dispatcher) revise(ctx context.Context) error {
	if err := errors.Join(d.adopt(ctx), d.loadLanes(ctx)); err != nil {
		return err
	}
	switch f, err := d.foreignStreams(ctx); {
	case err != nil:
		return err
	case f.any():
		return errForeign
	}
	return nil
}

// prepare makes sure that every declared stream has a cursor, that cursors and
// rows belong to this cluster and that the cursors can be moved. Nothing is
// published before: a relay that cannot record what it did would do it again and
// again.
func (d *dispatcher) prepare(stop, ctx context.Context) error {
	if _, err := d.pool.Exec(ctx, d.sql.alive, d.lease.holder, d.lease.term); err != nil {
		return fmt.Errorf("declare the term: %w", explain(err))
	}
	var names []string
	for _, s := range d.out.set.Streams {
		names = append(names, s.Name)
	}
	if _, err := d.pool.Exec(ctx, d.sql.declare, names); err != nil {
		return fmt.Errorf("declare the cursors: %w", explain(err))
	}
	// Whoever led before may have gone to sleep for good.
	if err := errors.Join(d.mark(ctx, false), d.adopt(ctx)); err != nil {
		return err
	}
	if err := d.takeOver(stop, ctx); err != nil {
		return err
	}
	if err := d.loadLanes(ctx); err != nil {
		return err
	}
	return d.checkCursors(ctx)
}

// adopt gives a cursor to every stream that has rows and none yet, as a writer
// with a newer topology than this relay leaves them. It starts at the empty
// base, so that no row is skipped, and says so: the topologies differ.
func (d *dispatcher) adopt(ctx context.Context) error {
	var stream string
	err := d.pinned(ctx, func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&stream}, func() error {
			d.log.Warn("rows of a stream this relay does not declare; it publishes them, but its topology should name it", "stream", stream)
			return nil
		})
		return err
	}, d.sql.adopt)
	if err != nil {
		return fmt.Errorf("look for streams without a cursor: %w", explain(err))
	}
	return nil
}

// checkCursors proves that the cursors can be moved and that what they rest on
// holds: see the statement.
func (d *dispatcher) checkCursors(ctx context.Context) error {
	var cache int64
	held := false
	err := d.pinned(ctx, func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&cache}, func() error {
			held = true
			return nil
		})
		return err
	}, d.sql.check, d.lease.holder, d.lease.term)
	switch {
	case err != nil:
		return fmt.Errorf("check the cursors: %w", explain(err))
	case !held:
		return errLeaseLost
	case cache != 1:
		return fmt.Errorf("%w: it is %d", ErrSequenceCache, cache)
	}
	return nil
}

// dispatch polls the streams that have no worker and starts one for each that
// has news. A stream that is to be looked at first is not polled.
func (d *dispatcher) dispatch(stop, work context.Context) error {
	d.looked = time.Now()
	var idle, foreign []string
	for _, l := range d.lanes {
		switch {
		case l.busy || time.Now().Before(l.heldUntil):
		case l.guard.used() && (l.guard.overdue() >= 0 || d.retention.misses(l.name)):
			d.start(stop, work, l, nil)
		case l.foreign.Load():
			foreign = append(foreign, l.name)
		default:
			idle = append(idle, l.name)
		}
	}
	if len(idle)+len(foreign) == 0 {
		return nil
	}
	deltas, err := d.look(work, idle, foreign)
	if err != nil {
		return err
	}
	d.health.good(partDatabase)
	if d.hooks.polled != nil {
		d.hooks.polled()
	}
	for _, news := range deltas {
		if l := d.lanes[news.stream]; news.idle() && l.recall.open {
			d.start(stop, work, l, news) // to look once whether the stream holds more than we know
		}
		if !news.idle() {
			d.start(stop, work, d.lanes[news.stream], news)
			err = errors.Join(err, d.rouse(work))
		}
	}
	return err
}

// recalling tells whether one of the streams is still to be asked what it holds
// of an earlier term.
func (d *dispatcher) recalling(streams []string) bool {
	return slices.ContainsFunc(streams, func(name string) bool { return d.lanes[name].recall.open })
}

// look asks for the new rows of the given streams. While nothing happens it
// glances first, and mostly leaves it at that.
func (d *dispatcher) look(ctx context.Context, streams, foreign []string) ([]*delta, error) {
	if len(foreign) > 0 {
		news, err := d.poll(ctx, d.sql.pollForeign, foreign)
		if err != nil || len(streams) == 0 {
			return news, err
		}
		more, err := d.poll(ctx, d.sql.poll, streams)
		return append(news, more...), err
	}
	woken := d.knocked
	d.knocked = false
	if !woken && d.busy == 0 && time.Since(d.news) > alertFor && !d.recalling(streams) {
		var err error
		if streams, err = d.glance(ctx, streams); err != nil || len(streams) == 0 {
			return nil, err
		}
	}
	return d.poll(ctx, d.sql.poll, streams)
}

// start gives a lane to a worker; without news it only looks at its stream.
func (d *dispatcher) start(stop, work context.Context, l *lane, news *delta) {
	l.busy = true
	d.busy++
	go func() {
		err := d.tend(stop, work, l, news)
		d.done <- outcome{l, err}
	}()
}

// wait returns when there may be something to do: a stream is free again, a
// writer knocked, or it is time to look.
func (d *dispatcher) wait(stop, work context.Context) error {
	pause, err := d.rest(work)
	if err != nil {
		return err
	}
	timer := time.NewTimer(min(pause, d.nextLook()))
	defer timer.Stop()
	select {
	case o := <-d.done:
		return d.finished(o)
	case <-d.woken:
		d.knocked = true
	case <-timer.C:
	case <-stop.Done():
	case <-work.Done():
	}
	return nil
}

// nextLook is when a stream is to be looked at again, or may be.
func (d *dispatcher) nextLook() time.Duration {
	next := d.cfg.ProbeInterval
	for _, l := range d.lanes {
		switch {
		case l.busy: // its worker reports
		case time.Now().Before(l.heldUntil):
			next = min(next, time.Until(l.heldUntil))
		case l.guard.used():
			next = min(next, -l.guard.overdue())
		}
	}
	return next
}

func (d *dispatcher) finished(o outcome) error {
	o.lane.busy = false
	d.busy--
	return o.err
}

// abandonAfter is what a worker gets to return after its context has ended. One
// that is stuck in a write to a stalled socket does not hear of that.
const abandonAfter = time.Second

// drain waits for the workers, bounded by the end of the work context, and
// closes their pipelines.
func (d *dispatcher) drain(work context.Context) error {
	abandon := make(chan struct{})
	unlink := context.AfterFunc(work, func() {
		time.AfterFunc(abandonAfter, func() { close(abandon) })
	})
	defer unlink()
	var faults []error
	for d.busy > 0 {
		select {
		case o := <-d.done:
			faults = append(faults, d.finished(o))
		case <-abandon:
			d.log.Warn("relay abandons workers that do not return", "streams", d.busy)
			d.busy = 0
		}
	}
	for _, l := range d.lanes {
		if !l.busy && l.pipe != nil {
			l.pipe.close()
		}
	}
	return errors.Join(faults...)
}
