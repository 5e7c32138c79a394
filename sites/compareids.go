package sites

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
)

// maxCompared is how many ids of a window are in memory at once.
const maxCompared = 50_000

// ids compares a window of a minute id by id. complete says that the origin has all
// that it had of it.
func (c *comparison) ids(ctx context.Context, at place, complete bool) (difference, error) {
	var all difference
	before, first := c.before.anchor, true
	for after := uint64(0); ; {
		held, next, err := c.askIDs(ctx, at, after)
		if err != nil {
			return all, err
		}
		one, err := c.seek(ctx, at, held, first && next == 0 && complete, before)
		all.join(one)
		if err != nil || next == 0 {
			return all, err
		}
		if len(all.lacking) >= maxLacking {
			all.more = true
			return all, nil
		}
		after, first = next, false
	}
}

// askIDs asks for the ids of a window that the origin holds, maxCompared or a few
// more, and waits until all of them should be here. next is where to go on, 0 at the
// end.
func (c *comparison) askIDs(ctx context.Context, at place, after uint64) (held map[string]uint64, next uint64, err error) {
	held = map[string]uint64{}
	var newest uint64
	for next = after; len(held) < maxCompared; {
		var a idsAnswer
		q := idsQuestion{question: c.question(), Kind: at.kind, Start: at.start, After: next}
		if err := c.ask(ctx, verbIDs, q, &a); err != nil {
			return nil, 0, err
		}
		for _, one := range a.IDs {
			held[one.ID] = one.Seq
			newest = max(newest, one.Seq)
		}
		if a.Next != 0 && a.Next <= next {
			return nil, 0, c.malformed("its pages do not go on")
		}
		if next = a.Next; next == 0 {
			break
		}
	}
	return held, next, c.arrive(ctx, newest, 0)
}

// seek looks for ids in the own stream. What is not found is lacking. If count is
// set it also counts what the origin has not: ids of the window that were here
// before the origin was asked.
func (c *comparison) seek(ctx context.Context, at place, held map[string]uint64, count bool, before uint64) (difference, error) {
	var found difference
	count = count && at.kind == byID
	missing, more := held, map[string]bool{}
	if count {
		missing = make(map[string]uint64, len(held))
		for id, seq := range held {
			missing[id] = seq
		}
	}
	err := c.readOwn(ctx, at, func(id string, seq uint64, h nats.Header) bool {
		delete(missing, id)
		if _, known := held[id]; count && !known && seq <= before && inWindow(byID, at.start, id, time.Time{}) && c.sequence(h)+c.sequenceAgain(h) > 0 {
			more[id] = true
		}
		return count || len(missing) > 0
	})
	if err != nil {
		return found, err
	}
	for id, seq := range missing {
		found.lacking = append(found.lacking, heldID{id, seq})
	}
	found.lacks = uint64(len(more))
	return found, nil
}

// readOwn reads the ids of the own stream where those of a window can be. see
// returns false to end it.
func (c *comparison) readOwn(ctx context.Context, at place, see func(id string, seq uint64, h nats.Header) bool) error {
	stream, err := c.w.conn.JetStream().Stream(ctx, c.stream.Name)
	if err != nil {
		return fmt.Errorf("read stream %s: %w", c.stream.Name, err)
	}
	p := pass.Pass{
		Stream: stream, Purpose: passPurpose, Filters: c.own.filters, HeadersOnly: true, Page: indexPage, Timeout: localTimeout,
		Policy: jetstream.DeliverByStartTimePolicy, Since: timeOf(at.start).Add(-clockSlack),
	}
	high := uint64(0)
	if at.kind == byID {
		in := c.own.at(byID, at.start)
		if in.high == 0 {
			return nil
		}
		p.Policy, p.From, high = jetstream.DeliverByStartSequencePolicy, in.low, in.high
	}
	return p.Run(ctx, func(m jetstream.Msg, meta *jetstream.MsgMetadata) (bool, error) {
		seq := meta.Sequence.Stream
		if high > 0 && seq > high {
			return false, nil
		}
		return see(m.Headers().Get(envelope.HeaderMsgID), seq, m.Headers()), nil
	})
}
