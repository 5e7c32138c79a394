package outbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/sleep"
)

const (
	// tailLimit bounds the messages that are read, and with them the ids that are
	// kept, 25 bytes each. What lies behind is sent again, and the inbox absorbs
	// it.
	tailLimit = 2_000_000
	// tailBatch is how many headers are asked for at once. Headers of one message
	// are at most 64 KiB, and usually 500 bytes.
	tailBatch = 500
	// tailIdle is when the server removes a reader that could not remove itself.
	tailIdle = 30 * time.Second
	// sourceHeader marks what the server copied from another stream.
	sourceHeader = "Nats-Stream-Source"
)

// tail is what a stream holds of ours behind a place in it. Rows that are found
// there are stored, whatever the cursor says and however long ago that was: the
// stream's duplicate window forgets, the stream does not.
//
// The nil tail is an empty one. One goroutine uses it at a time.
type tail struct {
	known   []known // by id; of an id that is there twice, the first
	found   []bool  // which of them find was asked for
	through int64   // how far the stream was read
	cut     bool    // there is more than tailLimit
}

// known is one message in the stream.
type known struct {
	id       [16]byte
	sequence int64
}

// find returns where the stream holds the message with the given id, and notes
// that it was asked for.
func (t *tail) find(id pgtype.UUID) (int64, bool) {
	if t == nil || !id.Valid {
		return 0, false
	}
	i, found := slices.BinarySearchFunc(t.known, id.Bytes, func(k known, id [16]byte) int {
		return bytes.Compare(k.id[:], id[:])
	})
	if !found {
		return 0, false
	}
	t.found[i] = true
	return t.known[i].sequence, true
}

// left returns what nobody asked for.
func (t *tail) left() []known {
	var left []known
	for i, k := range t.known {
		if !t.found[i] {
			left = append(left, k)
		}
	}
	return left
}

// seal brings what was collected in stream order into the order of search.
func (t *tail) seal() {
	slices.SortStableFunc(t.known, func(a, b known) int { return bytes.Compare(a.id[:], b.id[:]) })
	t.known = slices.CompactFunc(t.known, func(a, b known) bool { return a.id == b.id })
	t.found = make([]bool, len(t.known))
}

// author tells our messages from those of others in the same stream.
type author struct{ service, site string }

// idOf returns the id of a message that we published to this stream ourselves.
func (a author) idOf(h nats.Header) (id pgtype.UUID, ours bool) {
	if oneValue(h, envelope.HeaderSite) != a.site {
		return id, false
	}
	return idOf(h, a.service)
}

// place is where a tail begins: behind a sequence, or, where nothing was ever
// acknowledged, at a moment of the broker's clock.
type place struct {
	after int64
	since time.Time
}

// tail reads the stream from a place to its present end: only headers, in
// batches, through a consumer in memory that is removed afterwards.
//
// A consumer is not always on the stream's leader, and its server may be behind.
// So the end is what the leader says, and where the consumer has nothing more
// before it, the leader is asked whether that is all.
func (a asker) tail(ctx context.Context, stream string, from place, ours author, limit int) (*tail, error) {
	f, err := a.stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	t := &tail{through: max(from.after, f.last)}
	r := &tailReader{asker: a, stream: stream, position: max(from.after, f.first-1), last: f.last}
	if r.position >= r.last {
		return t, nil
	}
	if err := r.open(ctx, from); err != nil {
		return nil, err
	}
	defer r.close(ctx)
	err = r.each(ctx, func(sequence int64, h nats.Header) bool {
		if id, ok := ours.idOf(h); ok {
			t.known = append(t.known, known{id.Bytes, sequence})
		}
		limit--
		t.cut = limit == 0 && sequence < f.last
		return limit > 0
	})
	if err != nil {
		return nil, err
	}
	t.seal()
	return t, nil
}

// tailReader reads headers through a consumer of its own.
type tailReader struct {
	asker
	stream, name   string
	position, last int64 // read so far, and to be read
	pending        int64 // what the consumer says to have
	delivered      uint64
	sub            *nats.Subscription
	messages       chan *nats.Msg
}

// open makes the consumer. It lives on one server, in memory, and acknowledges
// nothing.
func (r *tailReader) open(ctx context.Context, from place) error {
	r.name = "outbox_tail_" + rand.Text()
	config := jetstream.ConsumerConfig{
		Name: r.name, Description: "what the outbox of a service has stored behind its cursor",
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(r.position) + 1,
		AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: tailIdle,
	}
	if from.after == 0 && !from.since.IsZero() {
		config.DeliverPolicy, config.OptStartSeq, config.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &from.since
	}
	body, err := json.Marshal(map[string]any{"stream_name": r.stream, "config": config, "action": "create"})
	if err != nil {
		return fmt.Errorf("read the tail of %s: %w", r.stream, err)
	}
	var made struct {
		Error   *apiError `json:"error"`
		Pending int64     `json:"num_pending"`
	}
	err = r.request(ctx, "CONSUMER.CREATE."+r.stream+"."+r.name, body, &made)
	switch {
	case err != nil:
		r.remove(ctx) // perhaps only the answer was lost
		return err
	case made.Error != nil:
		return made.Error.refusal()
	}
	r.pending = made.Pending
	r.messages = make(chan *nats.Msg, 2*tailBatch)
	// An inbox of its own: what comes late to one of the connection's common
	// inbox would be taken for the answer to another request.
	r.sub, err = r.nc.ChanSubscribe(r.nc.NewInbox(), r.messages)
	if err != nil {
		r.remove(ctx)
		return fmt.Errorf("read the tail of %s: %w", r.stream, err)
	}
	return nil
}

// close removes the consumer.
func (r *tailReader) close(ctx context.Context) {
	_ = r.sub.Unsubscribe()
	r.remove(ctx)
}

// remove is best effort: the server removes an idle consumer by itself.
func (r *tailReader) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAnswer)
	defer cancel()
	var ignored struct{}
	_ = r.request(ctx, "CONSUMER.DELETE."+r.stream+"."+r.name, nil, &ignored)
}

// each visits the headers of all messages up to the end, or until visit says
// that it has enough.
func (r *tailReader) each(ctx context.Context, visit func(sequence int64, h nats.Header) bool) error {
	for r.position < r.last {
		batch := min(tailBatch, r.pending)
		if batch <= 0 {
			more, err := r.leaderHasMore(ctx)
			if err != nil || !more {
				return err
			}
			batch = 1 // the consumer's server is behind; wait for it
		}
		more, err := r.pull(ctx, int(batch), visit)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// leaderHasMore asks the leader for a message between what was read and the end.
// There is none where the last ones were deleted.
func (r *tailReader) leaderHasMore(ctx context.Context) (bool, error) {
	var got struct {
		Error   *apiError `json:"error"`
		Message struct {
			Sequence int64 `json:"seq"`
		} `json:"message"`
	}
	body := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">"}`, r.position+1)
	if err := r.request(ctx, "STREAM.MSG.GET."+r.stream, body, &got); err != nil {
		return false, err
	}
	switch {
	case got.Error == nil:
		return got.Message.Sequence <= r.last, nil
	case got.Error.ErrCode == codeNoMessage:
		return false, nil
	}
	return false, got.Error.refusal()
}

// pull asks for n messages and visits them.
func (r *tailReader) pull(ctx context.Context, n int, visit func(sequence int64, h nats.Header) bool) (more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.timeout, r.stopped("no answer"))
	defer cancel()
	if err := r.ask(n); err != nil {
		return false, err
	}
	for n > 0 {
		select {
		case m, open := <-r.messages:
			if !open {
				return false, nats.ErrConnectionClosed
			}
			err := r.take(m)
			if errors.Is(err, nats.ErrNoResponders) { // our server does not know of the consumer yet
				sleep.For(ctx, 10*time.Millisecond)
				err = r.ask(n)
			} else if n--; err == nil && !visit(r.position, m.Header) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	return true, nil
}

// ask asks the consumer for n messages.
func (r *tailReader) ask(n int) error {
	request := fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, n, r.timeout)
	if err := r.nc.PublishRequest(r.prefix+"CONSUMER.MSG.NEXT."+r.stream+"."+r.name, r.sub.Subject, request); err != nil {
		return fmt.Errorf("%w: %w", r.stopped("not sent"), err)
	}
	return nil
}

// take notes where a message stands. The server numbers what it delivers and
// delivers it once, so a gap says that one was lost on the way.
func (r *tailReader) take(m *nats.Msg) error {
	meta, err := m.Metadata()
	switch {
	case err != nil && m.Header.Get("Status") == "503":
		return nats.ErrNoResponders
	case err != nil: // the consumer's last word
		return r.stopped(m.Header.Get("Status") + " " + m.Header.Get("Description"))
	case meta.Sequence.Consumer != r.delivered+1:
		return r.stopped("a part was lost on the way")
	}
	r.delivered++
	r.position, r.pending = int64(meta.Sequence.Stream), int64(meta.NumPending)
	return nil
}

func (r *tailReader) stopped(why string) error {
	return fmt.Errorf("%w: its end was read to %d of %d: %s", errNoAnswer, r.position, r.last, why)
}

// stale tells whether a stream may have forgotten an id that was sent to it at
// the given moment. The quarter is for the time until it is sent again, and for
// clocks: sent is when we wrote it, and the window begins when it was stored.
func (f facts) stale(sent time.Time) bool { return time.Since(sent) > f.window/4*3 }
