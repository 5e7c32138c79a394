package outbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/backoff"
)

// tick is how often a pipeline looks for late answers while it waits.
const tick = 50 * time.Millisecond

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

	prefix string // of the reply subjects
	acks   chan *nats.Msg
	sub    *nats.Subscription
	pages  uint64 // pages so far; tells late answers of an old page apart
	msg    nats.Msg

	failures int // in a row; only grows the pause, never gives up
}

func newPipeline(nc *nats.Conn, stream string, cfg RelayConfig, health *health, guard *guard) (*pipeline, error) {
	p := &pipeline{
		nc: nc, stream: stream, cfg: cfg, health: health, guard: guard,
		prefix: nc.NewRespInbox() + ".",
		// Room for every message in flight and its resends. An answer that
		// finds no room is dropped by the client: a resend, nothing worse.
		acks: make(chan *nats.Msg, 4*cfg.MaxPending),
		msg:  nats.Msg{Header: nats.Header{}},
	}
	sub, err := nc.ChanSubscribe(p.prefix+"*", p.acks)
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements of %s: %w", stream, err)
	}
	p.sub = sub
	return p, nil
}

// close ends the subscription; what is in flight stays unknown.
func (p *pipeline) close() { _ = p.sub.Unsubscribe() }

// publish returns when every row is stored, in order per key, and there is no
// doubt that it still is: no cursor moves in doubt. It waits as long as the
// broker makes it wait. The end of ctx, a closed connection or a stream that
// seems to have lost messages (errSuspect) end it early, and then the outcome
// of what was in flight is unknown; and so does the end of stop while the broker
// refuses, or does not answer, and nothing is in flight (errStopped).
func (p *pipeline) publish(stop, ctx context.Context, rows []row) (highest, error) {
	p.pages++
	f := newFlight(rows)
	f.reconnects = p.nc.Stats().Reconnects
	timer := time.NewTicker(tick)
	defer timer.Stop()
	if p.guard.overdue() >= 0 {
		p.guard.suspect = true
	}
	for f.acked < len(rows) || p.guard.doubts() {
		if err := p.probe(stop, ctx, f); err != nil {
			return highest{}, err
		}
		if err := p.send(f); err != nil {
			return highest{}, err
		}
		select {
		case m, open := <-p.acks:
			if !open {
				return highest{}, nats.ErrConnectionClosed
			}
			p.receive(f, m)
		case <-timer.C:
			p.expire(f)
			if stop.Err() != nil && f.pending == 0 && p.failures > 0 {
				return highest{}, errStopped
			}
		case <-ctx.Done():
			return highest{}, context.Cause(ctx)
		}
	}
	return f.anchor(), nil
}

// probe looks, where there is a reason, whether the stream still holds what it
// acknowledged. Messages sent to a stream that lost some would stand before
// those that must be sent again.
func (p *pipeline) probe(stop, ctx context.Context, f *flight) error {
	if f.paused() || !p.guard.doubts() {
		return nil
	}
	err := p.guard.check(stop, ctx, f.anchor())
	if errors.Is(err, errNoAnswer) {
		p.pause(f, err)
		return nil
	}
	return err
}

// send publishes what is ready, as far as the window and a pause allow. After
// a fault the window is one message, until one is stored: an outage costs a
// probe per pause, not a full window.
func (p *pipeline) send(f *flight) error {
	window := p.cfg.MaxPending
	if p.failures > 0 {
		window = 1
	}
	for f.pending < window && !f.paused() {
		i, ok := f.pop()
		if !ok {
			return nil
		}
		err := p.sendRow(f, i)
		switch {
		case errors.Is(err, nats.ErrConnectionClosed):
			return err
		case err != nil:
			f.failed(i)
			p.pause(f, fmt.Errorf("message %s on %s: not sent: %w", f.rows[i].uuid(), f.rows[i].subject, classifySend(err)))
			return nil
		}
		f.sent(i)
	}
	return nil
}

// sendRow writes one message. The message value is reused: the client encodes
// it before it returns.
func (p *pipeline) sendRow(f *flight, i int32) error {
	r := &f.rows[i]
	clear(p.msg.Header)
	if err := headerInto(p.msg.Header, r.headers); err != nil {
		return fmt.Errorf("row %d: %w", r.seq, err)
	}
	p.msg.Header[nats.ExpectedStreamHdr] = []string{p.stream}
	if p.cfg.Site != "" {
		p.msg.Header[envelope.HeaderSite] = []string{p.cfg.Site}
	}
	p.msg.Subject, p.msg.Data = r.subject, r.envelope
	p.msg.Reply = p.prefix + strconv.FormatUint(p.pages, 36) + "_" + strconv.FormatInt(int64(i), 36)
	return p.nc.PublishMsg(&p.msg)
}

var errHeaderColumn = errors.New("the header column is not made of lines \"Name: value\"")

// headerInto parses the header column, lines of "Name: value", into h.
func headerInto(h nats.Header, text string) error {
	for line := range strings.SplitSeq(text, "\r\n") {
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return errHeaderColumn
		}
		h[name] = append(h[name], value)
	}
	return nil
}

// receive takes one answer. An answer of any attempt proves that the message
// is stored, since all attempts carry the same id.
func (p *pipeline) receive(f *flight, m *nats.Msg) {
	page, row, ok := strings.Cut(m.Subject[len(p.prefix):], "_")
	if n, err := strconv.ParseUint(page, 36, 64); !ok || err != nil || n != p.pages {
		return // a late answer for an earlier page
	}
	n, err := strconv.ParseInt(row, 36, 32)
	if err != nil || n < 0 || int(n) >= len(f.rows) {
		return
	}
	i := int32(n)
	ack, err := readAck(m, p.stream, p.cfg.Domain)
	if err == nil {
		// Sent after all of the pages before were stored, yet not stored after
		// them: the stream gives sequences out again.
		if !ack.Duplicate && int64(ack.Sequence) <= p.guard.newest.sequence {
			p.guard.suspect = true
		}
		f.stored(i, ack.Sequence)
		if p.failures > 0 {
			p.failures = 0
			p.health.good(streamPart + p.stream)
		}
		return
	}
	if f.state[i] == rowInFlight {
		f.failed(i)
		p.pause(f, fmt.Errorf("message %s on %s: %w", f.rows[i].uuid(), f.rows[i].subject, err))
	}
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
		p.pause(f, fmt.Errorf("%w: %d message(s) not acknowledged within %v", errUnknown, late, p.cfg.AckTimeout))
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

func (r *row) uuid() string {
	text, err := r.id.Value()
	if err != nil || text == nil {
		return "unknown"
	}
	return fmt.Sprint(text)
}
