package sites

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
)

// sourceHeader is set by the server, which takes it from no publisher: where a
// message was copied from, "<stream>:<hash> <sequence> …".
const sourceHeader = "Nats-Stream-Source"

// One look reads this many messages of a mixed stream at most, and for this long, to
// find one that came by the flow: in a copy of events the newest one did, and commands
// of the own site are few between two looks. Each takes about 0.1 ms. The next look
// goes on where this one ended.
const (
	maxWalk  = 1000
	walkTime = time.Second
)

// position is how far a flow has come: the newest message in our stream that came
// by it. It belongs to one goroutine.
type position struct {
	seq  uint64 // its sequence at the origin; 0: none is known
	sure bool   // nothing newer came by the flow, up to read
	none bool   // of all that our stream holds, up to read, nothing came by the flow
	read uint64 // our sequences up to here were looked at, but for those that are left
	left uint64 // from here down to floor they were not; 0: all were
	// floor is up to where they were when that began.
	floor uint64
}

// update looks at what came since the last time, newest first, and then at what was
// left then.
func (p *position) update(ctx context.Context, stream jetstream.Stream, a arrival) error {
	state := stream.CachedInfo().State
	if state.LastSeq < p.read {
		*p = position{} // the stream was made anew
	}
	if p.left == 0 {
		p.floor = p.read
	}
	w := walk{stream: stream, of: a, until: time.Now().Add(walkTime)}
	left, err := w.down(ctx, state.LastSeq, max(p.read+1, state.FirstSeq))
	if err == nil && left == 0 && w.found == 0 {
		left, err = w.down(ctx, p.left, max(p.floor+1, state.FirstSeq))
	}
	switch {
	case err != nil:
		return err
	case w.found > 0:
		*p = position{seq: w.found, sure: true, read: state.LastSeq}
	case left > 0:
		p.sure, p.none, p.read, p.left = false, false, state.LastSeq, left
	default:
		p.sure, p.none, p.read, p.left = p.seq > 0, p.seq == 0, state.LastSeq, 0
	}
	return nil
}

// walk looks for the newest message that came by a flow.
type walk struct {
	stream jetstream.Stream
	of     arrival
	until  time.Time
	walked int
	found  uint64 // its sequence at the origin
}

// down looks at our sequences from..to, and returns where to go on: 0 if it found one,
// or looked at all.
func (w *walk) down(ctx context.Context, from, to uint64) (left uint64, err error) {
	for at := from; at >= to && at > 0; at-- {
		if w.walked == maxWalk || w.walked > 0 && time.Now().After(w.until) {
			return at, nil
		}
		w.walked++
		m, err := w.stream.GetMsg(ctx, at)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("sites: read message %d of %s: %w", at, w.of.stream.Name, err)
		}
		if w.found = w.of.sequence(m.Header); w.found > 0 {
			return 0, nil
		}
	}
	return 0, nil
}

// sequence returns where a message of our stream was in the stream that the flow
// begins in, 0 if it did not come by the flow.
func (a arrival) sequence(h nats.Header) uint64 { return a.sequenceIn(a.source.Stream, h) }

// sequenceAgain is sequence in the stream of what is sent again.
func (a arrival) sequenceAgain(h nats.Header) uint64 { return a.sequenceIn(a.again, h) }

func (a arrival) sequenceIn(origin string, h nats.Header) uint64 {
	stream, seq := sourceOf(h.Get(sourceHeader))
	if site := h.Get(envelope.HeaderSite); stream != origin || site != "" && site != a.From {
		return 0
	}
	return seq
}

// sourceOf reads the header that the server gives what it copies. It is "" and 0 for
// anything else.
func sourceOf(header string) (stream string, seq uint64) {
	from, rest, _ := strings.Cut(header, " ")
	number, _, _ := strings.Cut(rest, " ")
	stream, _, _ = strings.Cut(from, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || stream == "" {
		return "", 0
	}
	return stream, seq
}
