package sites

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
)

// sourceHeader is set by the server, which takes it from no publisher: where a
// message was copied from, "<stream>:<hash> <sequence> …".
const sourceHeader = "Nats-Stream-Source"

// maxWalk is how many messages of a mixed stream one look reads to find one that
// came by the flow: in a copy of events the newest one did, and commands of the own
// site are few between two looks. Each takes about 0.1 ms.
const maxWalk = 1000

// position is how far a flow has come: the newest message in our stream that came
// by it. It belongs to one goroutine.
type position struct {
	seq  uint64 // its sequence at the origin; 0: none is known
	sure bool   // nothing newer came by the flow, up to read
	read uint64 // our sequences up to here were looked at, or given up
}

// update looks at what came since the last time, newest first.
func (p *position) update(ctx context.Context, stream jetstream.Stream, a arrival) error {
	state := stream.CachedInfo().State
	if state.LastSeq < p.read {
		*p = position{} // the stream was made anew
	}
	down := max(p.read+1, state.FirstSeq)
	walked := 0
	for at := state.LastSeq; at >= down && at > 0; at-- {
		if walked == maxWalk {
			p.sure, p.read = false, state.LastSeq
			return nil
		}
		walked++
		m, err := stream.GetMsg(ctx, at)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sites: read message %d of %s: %w", at, a.stream.Name, err)
		}
		if seq := a.sequence(m.Header); seq > 0 {
			p.seq, p.sure, p.read = seq, true, state.LastSeq
			return nil
		}
	}
	p.read = state.LastSeq
	return nil
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
