package outbox

import "context"

// serve does what a poll found to be done for one stream: what operators ask
// for, then the new rows. A delta that fits a page is published as it is; a
// larger one is walked.
//
// It works under work; when stop ends it finishes what is under way.
func (d *dispatcher) serve(stop, work context.Context, l *lane, news *delta) error {
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
		if err != nil || wentBack {
			return err
		}
	}
	if news.complete && !news.walking {
		return d.serveDelta(stop, work, l, news)
	}
	if !news.walking {
		// Base, target and bounds are committed before the first row of the
		// walk is read: a crash of the database must find the same pair.
		if err := d.move(work, d.lease, d.sql.beginWalk, l.name, news.lastSeq); err != nil {
			return err
		}
	}
	return d.walk(stop, work, l)
}

// serveDelta publishes all that is new, and makes the snapshot it was read with
// the base.
func (d *dispatcher) serveDelta(stop, work context.Context, l *lane, news *delta) error {
	if len(news.rows) == 0 {
		return nil
	}
	var newest highest
	complete, err := d.publish(stop, work, l, whole(news.rows), func(p *flightPage) error {
		newest = p.newest.anchor()
		return nil
	})
	if err != nil || !complete {
		return err
	}
	return d.commit(work, l, d.sql.commitBase, news.snapshot, newest)
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
