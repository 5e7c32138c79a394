package outbox

import (
	"cmp"
	"context"
)

// walk publishes page by page what lies between base and target. While a page
// is published, the next one is read and the cursor of the one before is
// committed.
//
// Reading ahead goes from a position in memory, which polls must never do. Here
// it is safe: base and target are committed, so what lies between them can
// neither grow nor shrink, not even by a crash of the database.
func (d *dispatcher) walk(stop, work context.Context, l *lane) (err error) {
	ctx, cancel := context.WithCancel(work)
	ahead := d.readAhead(ctx, l.name)
	move := mover{d: d, lane: l}
	defer func() {
		cancel()
		for range ahead { // until the reader has ended
		}
		// Of a move that failed it is unknown whether it is still to happen. That
		// must end the term, which fences it, before anybody may go back.
		err = cmp.Or(move.wait(), err)
	}()
	for next := range ahead {
		if next.err != nil {
			return next.err
		}
		if rows := next.rows; len(rows) > 0 {
			acked, err := d.publish(stop, work, l, rows)
			if err != nil {
				return err
			}
			if err := move.to(work, rows[len(rows)-1].seq, acked); err != nil {
				return err
			}
		}
		switch {
		case next.last:
			if err := move.wait(); err != nil {
				return err
			}
			return d.move(work, d.lease, d.sql.endWalk, l.name)
		case stop.Err() != nil:
			return nil // whoever leads next resumes the walk
		}
	}
	return context.Cause(work)
}

// readResult is a page, or why there is none.
type readResult struct {
	page
	err error
}

// readAhead reads the pages of a walk, one more than its receiver has taken.
// The channel is closed after the last page, an error or the end of ctx.
func (d *dispatcher) readAhead(ctx context.Context, stream string) <-chan readResult {
	pages := make(chan readResult)
	go func() {
		defer close(pages)
		for position := int64(0); ; {
			p, err := d.readPage(ctx, stream, position)
			select {
			case pages <- readResult{p, err}:
			case <-ctx.Done():
				return
			}
			if err != nil || p.last {
				return
			}
			position = p.rows[len(p.rows)-1].seq
		}
	}()
	return pages
}

// mover commits the position of a walk in the background, one move at a time
// and in order.
type mover struct {
	d     *dispatcher
	lane  *lane
	moved chan error // of the move that is under way; nil without one
}

// to begins to move the cursor once the move before has ended.
func (m *mover) to(ctx context.Context, position int64, acked highest) error {
	if err := m.wait(); err != nil {
		return err
	}
	moved := make(chan error, 1)
	m.moved = moved
	go func() {
		moved <- m.d.commit(ctx, m.lane, m.d.sql.commitPage, position, acked)
	}()
	return nil
}

// wait ends with the move that is under way, and returns its error.
func (m *mover) wait() error {
	if m.moved == nil {
		return nil
	}
	err := <-m.moved
	m.moved = nil
	return err
}
