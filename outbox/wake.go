package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

// How the dispatcher rests. A NOTIFY in every transaction would take a lock
// that all commits of the database share (measured: 9,750 → 2,540 transactions
// a second at 32 clients), so writers notify only a relay that sleeps, and a
// relay sleeps only when there is nothing to do.
const (
	alertPoll = 5 * time.Millisecond  // between polls while messages come
	alertFor  = 50 * time.Millisecond // how long after the last one
	busyPoll  = 20 * time.Millisecond // for other streams, while some are being published

	// A connection that saw the relay awake does not look again for trustFor: a look
	// costs a fiftieth of a small transaction. So a relay that has written its mark
	// goes on polling for lingerFor, which leaves the last of those who did not look
	// 100 ms for their commit.
	trustFor   = 200 * time.Millisecond
	lingerFor  = trustFor + 100*time.Millisecond
	lingerPoll = 10 * time.Millisecond

	// How long the mark holds beyond the next poll; written again at half of it.
	// So long do writers notify a relay that was killed in its sleep and that
	// nobody replaces.
	markFor = 30 * time.Second
)

// channel is what LISTEN and NOTIFY use; the payload is empty.
const channel = "dv_outbox"

// rest returns how long to wait for news. Before it sleeps, the relay writes
// the mark that writers look at, looks once more, and lingers.
//
// The mark is a hint. Who did not see it, and commits after the last look before
// the sleep, does not notify; the slow poll, PollInterval, bounds what that costs.
// Why it is a sequence: docs/decisions/0011. Why not every writer looks at it:
// docs/decisions/0032.
func (d *dispatcher) rest(ctx context.Context) (time.Duration, error) {
	switch {
	case d.out.cfg.PollOnly:
		return d.cfg.PollInterval, nil
	case d.busy > 0:
		return min(busyPoll, d.cfg.PollInterval), nil
	case time.Since(d.news) < alertFor:
		return min(alertPoll, d.cfg.PollInterval), nil
	case d.asleep.IsZero():
		err := d.mark(ctx, true)
		d.resting = time.Now() // not before: whoever looked while it was written trusts from then on
		return 0, err
	case d.looked.Sub(d.resting) < d.lingerFor: // a look that took long tells nothing of its end
		return min(lingerPoll, d.cfg.PollInterval), nil
	case time.Since(d.asleep) > markFor/2:
		return d.cfg.PollInterval, d.mark(ctx, true)
	}
	return d.cfg.PollInterval, nil
}

// rouse notes that there are news, and lets writers commit unhindered.
func (d *dispatcher) rouse(ctx context.Context) error {
	d.news = time.Now()
	if d.asleep.IsZero() {
		return nil
	}
	return d.mark(ctx, false)
}

// mark writes the mark, without waiting for the disk.
func (d *dispatcher) mark(ctx context.Context, asleep bool) error {
	var since time.Time
	var hold time.Duration
	if asleep {
		since, hold = time.Now(), d.cfg.PollInterval+markFor
	}
	if _, err := d.pool.Exec(ctx, d.sql.mark, d.lease.holder, d.lease.term, hold); err != nil {
		return fmt.Errorf("write the relay's asleep mark: %w", explain(err))
	}
	d.asleep = since
	return nil
}

// listen signals woken at every notification until ctx ends. While there is no
// connection to listen on, the slow poll does the work.
func (r *Relay) listen(ctx context.Context, woken chan<- struct{}) {
	for ctx.Err() == nil {
		if err := r.listenOnce(ctx, woken); err != nil && ctx.Err() == nil {
			r.log.Debug("relay does not listen for a moment; it polls", "reason", err)
		}
		sleep.For(ctx, time.Second)
	}
}

// listenOnce listens on a connection of its own, which it takes out of the
// pool: a pool shared with the service must not lose one for good.
func (r *Relay) listenOnce(ctx context.Context, woken chan<- struct{}) error {
	pooled, err := r.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	defer closeConn(ctx, conn)
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	for {
		select {
		case woken <- struct{}{}: // also once at the start: something may have come before
		default:
		}
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// glimpse is what a connection knows of the relay from its latest look.
type glimpse struct {
	awakeUntil time.Time // so long the relay is taken for awake
}

// glimpsesOf returns the name by which connections keep the glimpses of an outbox: one
// per schema, and another one for who polls only, since that has not looked.
func glimpsesOf(schema string, pollOnly bool) string {
	return fmt.Sprintf("messaging.outbox %s, poll only: %t", schema, pollOnly)
}

// glimpseOf returns what the connection of tx knows. It is kept with the
// connection, which belongs to one database, and to one goroutine at a time.
func (o *Outbox) glimpseOf(tx pgx.Tx) *glimpse {
	conn := tx.Conn()
	if conn == nil { // somebody's own Tx
		return new(glimpse)
	}
	data := conn.PgConn().CustomData()
	s, ok := data[o.glimpses].(*glimpse)
	if !ok {
		s = new(glimpse)
		data[o.glimpses] = s
	}
	return s
}
