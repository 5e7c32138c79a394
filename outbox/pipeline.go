package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/telemetry"
)

const (
	tick          = 50 * time.Millisecond // between looks for late answers
	answersAtOnce = 64                    // answers taken before the next rows are sent
	pagesAhead    = 4                     // pages of one stream that may be under way
)

// pipeline publishes pages of one stream: many messages in flight, but of one
// ordering key never more than one, so that no resend can overtake (P4).
//
// It publishes plainly with a reply subject of its own and reads the
// acknowledgements itself: one channel for all, no future per message. One
// goroutine uses a pipeline at a time.
type pipeline struct {
	nc     *nats.Conn
	stream string
	cfg    RelayConfig
	health *health
	guard  *guard
	recall *recall
	except *exceptions
	park   func(ctx context.Context, r *row, cause error) (bool, error)
	tracer *telemetry.Tracer

	prefix string // of the reply subjects
	acks   chan *nats.Msg
	sub    *nats.Subscription
	read   ackReader
	next   int64 // number of the row that is published next; tells late answers apart
	msg    outgoing

	tick     time.Duration
	failures int // in a row; only grows the pause, never gives up
}

func (d *dispatcher) newPipeline(l *lane) (*pipeline, error) {
	p := &pipeline{
		nc: d.nc, stream: l.name, cfg: d.cfg, health: d.health, guard: &l.guard, recall: &l.recall, except: &l.except,
		park:   func(ctx context.Context, r *row, cause error) (bool, error) { return d.park(ctx, l, r, cause) },
		tracer: d.tracer,

		prefix: d.nc.NewRespInbox() + ".",
		read:   ackReader{stream: l.name, domain: d.cfg.Domain},
		// Room for every message in flight and its resends. An answer that
		// finds no room is dropped by the client: a resend, nothing worse.
		acks: make(chan *nats.Msg, 4*d.cfg.MaxPending),
		msg:  newOutgoing(l.name, d.cfg.Site),
		tick: d.tick,
	}
	sub, err := d.nc.ChanSubscribe(p.prefix+"*", p.acks)
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements of %s: %w", l.name, err)
	}
	p.sub = sub
	return p, nil
}

// close ends the subscription; what is in flight stays unknown.
func (p *pipeline) close() { _ = p.sub.Unsubscribe() }

// publish publishes pages until there are no more, and tells arrived of each,
// in order, when every row up to its end is stored, in order per key, and
// there is no doubt that it still is: no cursor moves in doubt. complete says
// that the last page was among them.
//
// It waits as long as the broker makes it wait. After stop it takes no further
// page. The end of ctx, a closed connection, an error of arrived or a stream
// that seems to have lost messages (errSuspect) end it early, and then the
// outcome of what was in flight is unknown; and so does the end of stop while
// the broker refuses, or does not answer, and nothing is in flight (errStopped).
func (p *pipeline) publish(stop, ctx context.Context, pages <-chan readResult, arrived func(*flightPage) error) (complete bool, err error) {
	f := newFlight(p.next, p.guard.newest.sequence)
	defer func() {
		p.next = f.end()
		f.endTraces(err)
	}()
	f.reconnects = p.nc.Stats().Reconnects
	timer := time.NewTicker(p.tick)
	defer timer.Stop()
	stopped := stop.Done()
	for {
		if err := p.advance(stop, ctx, f, arrived); err != nil {
			return false, err
		}
		if pages == nil && len(f.pages) == 0 && !p.guard.doubts() {
			return complete, nil // now, and not at the next tick
		}
		room := pages
		if len(f.pages) >= pagesAhead {
			room = nil
		}
		select {
		case next, open := <-room:
			if !open {
				return false, context.Cause(ctx)
			}
			if next.err != nil {
				return false, next.err
			}
			if p.board(f, next.page); next.last {
				pages, complete = nil, true
			}
		case m, open := <-p.acks:
			if !open {
				return false, nats.ErrConnectionClosed
			}
			if err := p.receive(ctx, f, m); err != nil {
				return false, err
			}
		case <-timer.C:
			p.expire(f)
			if stop.Err() != nil && f.pending == 0 && p.failures > 0 {
				return false, errStopped
			}
		case <-stopped:
			pages, stopped = nil, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// board takes a page aboard.
func (p *pipeline) board(f *flight, next page) {
	if len(next.rows) == 0 {
		return
	}
	if p.guard.overdue() >= 0 {
		p.guard.suspect = true
	}
	f.join(next, p.except.pass).span = p.traced(next.rows)
}

// advance does what can be done now: look whether the stream is as it was left,
// report pages, send.
func (p *pipeline) advance(stop, ctx context.Context, f *flight, arrived func(*flightPage) error) error {
	for {
		if err := p.probe(stop, ctx, f); err != nil {
			return err
		}
		for !p.guard.doubts() {
			page := f.leave()
			if page == nil {
				break
			}
			page.span.Sent(page.duplicates)
			if err := arrived(page); err != nil {
				return err
			}
		}
		if err := p.send(ctx, f); err != nil || p.guard.doubts() || !f.arrived() {
			return err // else rows were found in the stream, and no answer will come for them
		}
	}
}

// probe looks, where there is a reason, whether the stream still holds what it
// acknowledged, and what it holds that no cursor tells of. Messages sent to a
// stream that lost some would stand before those that must be sent again.
func (p *pipeline) probe(stop, ctx context.Context, f *flight) (err error) {
	if f.paused() {
		return nil
	}
	if p.guard.doubts() {
		err = p.guard.check(stop, ctx, f.newest.anchor())
	}
	if err == nil && p.recall.due && f.left > 0 {
		after := p.recall.after
		if !p.recall.open && len(f.pages) > 0 {
			after = max(after, f.pages[0].after)
		}
		err = p.recall.read(stop, ctx, after)
	}
	if errors.Is(err, errNoAnswer) {
		p.pause(f, err)
		return nil
	}
	return err
}

// send publishes what is ready, as far as the window and a pause allow. After
// a fault the window is one message, until one is stored: an outage costs a
// probe per pause, not a full window.
func (p *pipeline) send(ctx context.Context, f *flight) error {
	window := p.cfg.MaxPending
	if p.failures > 0 {
		window = 1
	}
	if f.pending >= window || f.paused() || p.recall.due {
		return nil
	}
	for now := time.Now(); f.pending < window; {
		number, ok := f.pop()
		if !ok {
			return nil
		}
		s := f.at(number)
		if sequence, found := p.recall.find(s.id); found {
			f.stored(number, uint64(sequence), true)
			continue
		}
		if p.recall.forgotten(s.unsure, p.guard.window) {
			p.recall.due = true
			f.failed(number)
			return nil
		}
		err := p.msg.send(p.nc, s.row, p.prefix+strconv.FormatInt(number, 36))
		switch {
		case err == nil:
			f.sent(number, now)
		case errors.Is(err, nats.ErrConnectionClosed):
			return err
		default:
			return p.refused(ctx, f, number, fmt.Errorf("not sent: %w", classifySend(err)))
		}
	}
	return nil
}

// receive takes an answer and others that are there, but not so many that the
// broker would run out of work before the next rows are sent.
func (p *pipeline) receive(ctx context.Context, f *flight, m *nats.Msg) error {
	for range answersAtOnce {
		if err := p.receiveOne(ctx, f, m); err != nil {
			return err
		}
		select {
		case next, open := <-p.acks:
			if !open {
				return nats.ErrConnectionClosed
			}
			m = next
		default:
			return nil
		}
	}
	return p.receiveOne(ctx, f, m)
}

// receiveOne takes one answer. An answer of any attempt proves that the message
// is stored, since all attempts carry the same id.
func (p *pipeline) receiveOne(ctx context.Context, f *flight, m *nats.Msg) error {
	number, err := strconv.ParseInt(m.Subject[len(p.prefix):], 36, 64)
	if err != nil {
		return nil
	}
	s := f.at(number)
	if s == nil {
		return nil // a late answer, of a page that has arrived
	}
	ack, err := p.read.ack(m)
	if err != nil {
		if s.state == rowInFlight {
			return p.refused(ctx, f, number, err)
		}
		return nil
	}
	// Sent after other messages were stored, yet not stored after them: the
	// stream gives sequences out again.
	if !ack.Duplicate && int64(ack.Sequence) <= s.page.after {
		p.guard.suspect = true
	}
	f.stored(number, ack.Sequence, ack.Duplicate)
	if p.failures > 0 {
		p.failures = 0
		p.health.good(streamPart + p.stream)
	}
	return nil
}

// refused deals with a message that was not taken: its key is parked, if nothing
// can ever change that, or the stream is held back for a while.
func (p *pipeline) refused(ctx context.Context, f *flight, number int64, why error) error {
	r := f.at(number).row
	why = fmt.Errorf("message %s on %.255s: %w", r.uuid(), r.subject, why)
	if errors.Is(why, errImpossible) {
		parked, err := p.park(ctx, r, why)
		if err != nil {
			return err
		}
		if parked {
			f.hold(number)
			return nil
		}
	}
	f.failed(number)
	p.pause(f, why)
	return nil
}

// expire sends again what was not answered in time, and at once what was in
// flight on a connection that is gone: its answers cannot come any more.
func (p *pipeline) expire(f *flight) {
	if n := p.nc.Stats().Reconnects; n != f.reconnects {
		f.reconnects = n
		f.failAll()
		return
	}
	if late := f.failOlder(time.Now().Add(-p.cfg.AckTimeout)); late > 0 {
		why := fmt.Errorf("%w: %d message(s) not acknowledged within %v", errUnknown, late, p.cfg.AckTimeout)
		if denied := p.nc.LastError(); errors.Is(denied, nats.ErrPermissionViolation) {
			why = fmt.Errorf("%w; the last error of the connection: %w", why, denied)
		}
		p.pause(f, why)
	}
}

// pause holds the stream back for a growing time. Answers are still taken.
func (p *pipeline) pause(f *flight, why error) {
	if f.paused() {
		return // one fault of many: the pause is already running
	}
	policy := backoff.Policy{Initial: 50 * time.Millisecond, Max: 2 * time.Second}
	if errors.Is(why, errMisconfigured) || errors.Is(why, errImpossible) {
		policy = backoff.Policy{Initial: time.Second, Max: 30 * time.Second}
	}
	p.failures++
	p.guard.suspect = true // whatever held the stream back may have changed it
	f.pausedUntil = time.Now().Add(policy.Delay(p.failures))
	p.health.bad(streamPart+p.stream, why)
}
