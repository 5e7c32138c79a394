package outbox

import "context"

// serve publishes what a poll found for one stream and moves its cursor. A
// delta that fits a page is published as it is; a larger one is walked.
//
// It works under work; when stop ends it finishes the page it is on.
func (d *dispatcher) serve(stop, work context.Context, l *lane, news *delta) error {
	if l.pipe == nil {
		pipe, err := newPipeline(d.nc, l.name, d.cfg, d.health, &l.guard)
		if err != nil {
			return err
		}
		l.pipe = pipe
	}
	if news.complete && !news.walking {
		acked, err := d.publish(stop, work, l, news.rows)
		if err != nil {
			return err
		}
		return d.commit(work, l, d.sql.commitBase, news.snapshot, acked)
	}
	if !news.walking {
		// Base, target and bounds are committed before the first row of the
		// walk is read: a crash of the database must find the same pair.
		if err := d.move(work, d.lease, d.sql.beginWalk, l.name); err != nil {
			return err
		}
	}
	return d.walk(stop, work, l)
}

// publish returns when every row is stored in the stream.
func (d *dispatcher) publish(stop, work context.Context, l *lane, rows []row) (highest, error) {
	acked, err := l.pipe.publish(stop, work, rows)
	if err == nil {
		l.guard.newest = l.guard.newest.newer(acked)
	}
	if err == nil && d.hooks.published != nil {
		d.hooks.published(l.name, len(rows))
	}
	return acked, err
}
