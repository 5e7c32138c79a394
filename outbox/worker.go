package outbox

import (
	"context"
	"fmt"
)

// serve does what a poll found to be done for one stream: what operators ask
// for, then the new rows. A delta that fits a page is published as it is; a
// larger one is walked.
//
// It works under work; when stop ends it finishes what is under way.
func (d *dispatcher) serve(stop, work context.Context, l *lane, news *delta) error {
	if news.idle() {
		return d.recalled(stop, work, l)
	}
	if l.pipe == nil {
		pipe, err := d.newPipeline(l)
		if err != nil {
			return err
		}
		l.pipe = pipe
	}
	l.except = exceptions{}
	if news.exceptions || news.requested {
		wentBack, err := d.obey(stop, work, l)
		if err != nil || wentBack || stop.Err() != nil { // what was not released yet may not be passed over
			return err
		}
	}
	err := d.serveRows(stop, work, l, news)
	if err != nil || stop.Err() != nil || news.walking {
		return err // behind a walk of an earlier term there may be rows that it sent since
	}
	return d.recalled(stop, work, l)
}

// serveRows publishes the new rows.
func (d *dispatcher) serveRows(stop, work context.Context, l *lane, news *delta) error {
	if news.complete && !news.walking {
		return d.serveDelta(stop, work, l, news)
	}
	if !news.walking {
		if _, err := d.pool.Exec(work, d.sql.drawID); err != nil {
			return fmt.Errorf("begin to walk %s: %w", l.name, explain(err))
		}
		// Base, target and bounds are committed before the first row of the
		// walk is read: a crash of the database must find the same pair.
		if err := d.move(work, d.lease, d.sql.beginWalk, l.name, news.lastSeq); err != nil {
			return err
		}
	}
	return d.walk(stop, work, l, news.walking)
}

// serveDelta publishes all that is new, and makes the snapshot it was read with
// the base.
func (d *dispatcher) serveDelta(stop, work context.Context, l *lane, news *delta) error {
	if len(news.rows) == 0 {
		return nil
	}
	var newest highest
	var behind int64
	complete, err := d.publish(stop, work, l, whole(news.rows), func(p *flightPage) error {
		newest, behind = p.newest.anchor(), p.behind
		return nil
	})
	if err != nil || !complete {
		return err
	}
	return d.commit(work, l, d.sql.commitBase, news.snapshot, newest, behind, news.lastSeq)
}

// publish publishes a feed. It tells whether the feed came to its end, which it
// does not after a stop.
func (d *dispatcher) publish(stop, work context.Context, l *lane, f feed, arrived func(*flightPage) error) (bool, error) {
	ctx, cancel := context.WithCancel(work)
	pages := f.pages(ctx)
	defer func() {
		cancel()
		for range pages { // until the reader has ended
		}
	}()
	return l.pipe.publish(stop, work, pages, func(p *flightPage) error {
		l.guard.newest = l.guard.newest.newer(p.newest.anchor())
		if d.hooks.published != nil {
			d.hooks.published(l.name, p.rows)
		}
		return arrived(p)
	})
}
