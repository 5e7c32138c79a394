package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/topology"
)

const (
	// page is how many messages one request asks for: the bound of what waits in
	// memory.
	page = 500
	// abandoned is after what time the server removes a pass that could not
	// remove itself, for example because the process died.
	abandoned = time.Minute
	// resumes is how often a pass starts anew without having come further.
	resumes = 3
)

// pass is one reading of a stream from front to back, in order and without a
// gap: what the client library calls an ordered consumer, with the difference
// that every request ends with the caller's context and that the consumer is
// removed at the end.
type pass struct {
	stream  jetstream.Stream
	filters []string
	policy  jetstream.DeliverPolicy
	// from is the first sequence of interest, for DeliverByStartSequencePolicy.
	from uint64
	// headersOnly leaves the bodies on the server.
	headersOnly bool
}

// visit sees each message of a pass. It returns false to end the pass.
type visit func(jetstream.Msg, *jetstream.MsgMetadata) (more bool, err error)

// errGap says that a message of the pass is missing; the pass is resumed.
var errGap = errors.New("a message was lost on the way")

// run makes the pass. After a lost connection, a change of leader or a lost
// message it goes on behind the last message that was seen.
func (q *Queue) run(ctx context.Context, p pass, see visit) error {
	for stuck := 0; ; {
		last, done, err := q.runOnce(ctx, p, see)
		if done {
			return err
		}
		if last >= p.from && last > 0 {
			p.policy, p.from, stuck = jetstream.DeliverByStartSequencePolicy, last+1, 0
		} else if stuck++; stuck > resumes {
			return fmt.Errorf("dlq: read stream %s: %w", p.stream.CachedInfo().Config.Name, err)
		}
		if pauseErr := pause(ctx, stuck+1); pauseErr != nil {
			return fmt.Errorf("dlq: read stream %s: %w", p.stream.CachedInfo().Config.Name, pauseErr)
		}
	}
}

// runOnce reads with one consumer. done says that there is nothing to resume:
// the end was reached, or the visitor ended the pass.
func (q *Queue) runOnce(ctx context.Context, p pass, see visit) (last uint64, done bool, err error) {
	consumer, err := q.open(ctx, p)
	if err != nil {
		return 0, false, err
	}
	defer q.remove(ctx, p.stream, consumer.CachedInfo().Name)
	r := reading{see: see, pending: consumer.CachedInfo().NumPending}
	for r.pending > 0 {
		if done, err := r.page(ctx, consumer); err != nil || done {
			return r.last, done, err
		}
		if r.got > 0 {
			continue
		}
		if err := q.ask(ctx, consumer, &r); err != nil {
			return r.last, false, err
		}
	}
	return r.last, true, nil
}

// open creates the consumer of a pass: ephemeral, in memory, without
// acknowledgements, under a name of its own (requirement T5).
func (q *Queue) open(ctx context.Context, p pass) (jetstream.Consumer, error) {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	return p.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Name:              topology.EphemeralName("dlq"),
		DeliverPolicy:     p.policy,
		OptStartSeq:       startOf(p),
		AckPolicy:         jetstream.AckNonePolicy,
		FilterSubjects:    p.filters,
		HeadersOnly:       p.headersOnly,
		InactiveThreshold: abandoned,
		Replicas:          1,
		MemoryStorage:     true,
	})
}

// startOf returns the start sequence, which the server refuses beside a policy
// that does not use it.
func startOf(p pass) uint64 {
	if p.policy != jetstream.DeliverByStartSequencePolicy {
		return 0
	}
	return max(p.from, 1)
}

// remove deletes the consumer of a pass, also when the caller's context has
// ended. If it fails, the server does it after a minute.
func (q *Queue) remove(ctx context.Context, stream jetstream.Stream, name string) {
	ctx, cancel := q.bounded(context.WithoutCancel(ctx))
	defer cancel()
	_ = stream.DeleteConsumer(ctx, name)
}

// ask finds out what an empty page means, which is no proof of the end: the rest
// may have been removed, or it was sent and did not arrive.
func (q *Queue) ask(ctx context.Context, consumer jetstream.Consumer, r *reading) error {
	ctx, cancel := q.bounded(ctx)
	defer cancel()
	info, err := consumer.Info(ctx)
	if err != nil {
		return err
	}
	if info.Delivered.Consumer != r.seen {
		return errGap
	}
	r.pending = info.NumPending
	return nil
}

// reading is the state of a pass on one consumer.
type reading struct {
	see     visit
	pending uint64 // messages behind the last one seen
	last    uint64 // its sequence in the stream
	seen    uint64 // its sequence in the consumer
	got     int    // messages of the last page
}

// page reads up to one page. The request does not wait for messages to come:
// what is stored now is the pass.
func (r *reading) page(ctx context.Context, consumer jetstream.Consumer) (done bool, err error) {
	r.got = 0
	batch, err := consumer.FetchNoWait(int(min(r.pending, page)))
	if err != nil {
		return false, err
	}
	messages := batch.Messages()
	for {
		select {
		case <-ctx.Done():
			return true, context.Cause(ctx)
		case m, open := <-messages:
			if !open {
				return false, batch.Error()
			}
			if done, err := r.take(m); done || err != nil {
				return done, err
			}
		}
	}
}

// take hands one message to the visitor, unless one before it is missing.
func (r *reading) take(m jetstream.Msg) (done bool, err error) {
	meta, err := m.Metadata()
	if err != nil {
		return false, err
	}
	if meta.Sequence.Consumer != r.seen+1 {
		return false, errGap
	}
	more, err := r.see(m, meta)
	if err != nil || !more {
		return true, err
	}
	r.got++
	r.seen, r.last, r.pending = meta.Sequence.Consumer, meta.Sequence.Stream, meta.NumPending
	return false, nil
}
