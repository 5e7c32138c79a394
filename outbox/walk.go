package outbox

import (
	"cmp"
	"context"
	"time"
)

// walk publishes page by page what lies between base and target. Pages are read
// ahead, and the cursor is committed behind.
//
// Reading ahead goes from a position in memory, which polls must never do. Here
// it is safe: base and target are committed, so what lies between them can
// neither grow nor shrink, not even by a crash of the database.
func (d *dispatcher) walk(stop, work context.Context, l *lane, resumed bool) (err error) {
	move := mover{d: d, lane: l}
	defer func() {
		// Of a move that failed it is unknown whether it is still to happen. That
		// must end the term, which fences it, before anybody may go back.
		err = cmp.Or(move.wait(), err)
	}()
	read := func(ctx context.Context, after int64) (page, error) { return d.readPage(ctx, l.name, after) }
	// Of rows that an earlier term may have sent it is not known before the end
	// which of them the stream holds.
	behind := l.recall.after
	complete, err := d.publish(stop, work, l, feed{0, read}, func(p *flightPage) error {
		if !l.recall.open {
			behind = p.behind
		}
		return move.to(work, p.last, p.newest.anchor(), behind)
	})
	if err != nil {
		return err
	}
	if err := move.flush(work); err != nil || !complete {
		return err // after a stop, whoever leads next resumes the walk
	}
	if !l.recall.open || !resumed {
		behind = max(behind, l.guard.newest.sequence)
	}
	return d.move(work, d.lease, d.sql.endWalk, l.name, behind)
}

// moveEvery is the least time between two moves of the cursor in a walk. What
// was published since the last one is published again after a crash, well
// inside the duplicate window.
const moveEvery = 100 * time.Millisecond

// mover commits the position of a walk in the background, one move at a time
// and in order. Positions that come too quickly are passed over.
type mover struct {
	d        *dispatcher
	lane     *lane
	position int64
	acked    highest
	behind   int64
	due      bool       // position is not committed
	began    time.Time  // the latest move
	moved    chan error // of the move that is under way; nil without one
}

// to notes a position, and begins to move the cursor there if it is time.
func (m *mover) to(ctx context.Context, position int64, acked highest, behind int64) error {
	m.position, m.acked, m.behind, m.due = position, m.acked.newer(acked), behind, true
	if m.moved != nil && len(m.moved) == 0 || time.Since(m.began) < m.d.moveEvery {
		return nil
	}
	return m.begin(ctx)
}

func (m *mover) begin(ctx context.Context) error {
	if err := m.wait(); err != nil {
		return err
	}
	moved := make(chan error, 1)
	m.moved, m.began, m.due = moved, time.Now(), false
	position, acked, behind := m.position, m.acked, m.behind
	go func() {
		moved <- m.d.commit(ctx, m.lane, m.d.sql.commitPage, position, acked, behind)
	}()
	return nil
}

// flush moves the cursor to the last position, and waits for it.
func (m *mover) flush(ctx context.Context) error {
	if m.due {
		if err := m.begin(ctx); err != nil {
			return err
		}
	}
	return m.wait()
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
