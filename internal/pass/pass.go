// Package pass reads a stream once from front to back, in order and without a
// gap: what the client library calls an ordered consumer, with the difference
// that every request ends with the caller's context and that the consumer is
// removed at the end. Package dlq reads letters and marks with it, package
// history messages.
package pass

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// DefaultPage is that of Pass.Page, for messages without their bodies.
	DefaultPage = 500
	// abandoned is after what time the server removes a pass that could not
	// remove itself, for example because the process died.
	abandoned = time.Minute
	// resumes is how often a pass starts anew without having come further.
	resumes = 3
)

// Pass is one reading of a stream. Stream, Purpose and Timeout are required.
type Pass struct {
	// Stream is what is read.
	Stream jetstream.Stream
	// Purpose begins the name of the consumer.
	Purpose string
	// Filters are the subjects; none means all.
	Filters []string
	// Policy is where it begins: by default with the first message; with From or
	// Since for the policies that take a sequence or a time.
	Policy jetstream.DeliverPolicy
	From   uint64
	Since  time.Time
	// HeadersOnly leaves the bodies on the server.
	HeadersOnly bool
	// Page is how many messages one request asks for: the bound of what waits in
	// memory. Default: DefaultPage.
	Page int
	// Timeout bounds each single request.
	Timeout time.Duration
}

// Visit sees each message of a pass. It returns false to end the pass.
type Visit func(jetstream.Msg, *jetstream.MsgMetadata) (more bool, err error)

// errGap says that a message of the pass is missing; the pass is resumed.
var errGap = errors.New("a message was lost on the way")

// Run makes the pass, and calls see for each message from the caller's goroutine.
// After a lost connection, a change of leader or a lost message it goes on behind
// the last message that was seen. It ends with the last message, when see says so
// or returns an error, and with the cause of ctx.
func (p Pass) Run(ctx context.Context, see Visit) error {
	for stuck := 0; ; {
		last, done, err := p.once(ctx, see)
		if done {
			return err
		}
		if last >= p.From && last > 0 {
			p.Policy, p.From, stuck = jetstream.DeliverByStartSequencePolicy, last+1, 0
		} else if stuck++; stuck > resumes {
			return fmt.Errorf("read stream %s: %w", p.Stream.CachedInfo().Config.Name, err)
		}
		if pauseErr := pause(ctx, stuck+1); pauseErr != nil {
			return fmt.Errorf("read stream %s: %w", p.Stream.CachedInfo().Config.Name, pauseErr)
		}
	}
}

// once reads with one consumer. done says that there is nothing to resume: the
// end was reached, or the visitor ended the pass.
func (p Pass) once(ctx context.Context, see Visit) (last uint64, done bool, err error) {
	consumer, err := p.open(ctx)
	if err != nil {
		return 0, false, err
	}
	defer p.remove(ctx, consumer.CachedInfo().Name)
	r := reading{see: see, pending: consumer.CachedInfo().NumPending, most: cmp.Or(p.Page, DefaultPage)}
	for r.pending > 0 {
		if done, err := r.page(ctx, consumer); err != nil || done {
			return r.last, done, err
		}
		if r.got > 0 {
			continue
		}
		if err := p.ask(ctx, consumer, &r); err != nil {
			return r.last, false, err
		}
	}
	return r.last, true, nil
}

// open creates the consumer of a pass: ephemeral, in memory, without
// acknowledgements, under a name of its own (requirement T5).
func (p Pass) open(ctx context.Context) (jetstream.Consumer, error) {
	cfg := jetstream.ConsumerConfig{
		Name:              topology.EphemeralName(p.Purpose),
		DeliverPolicy:     p.Policy,
		AckPolicy:         jetstream.AckNonePolicy,
		FilterSubjects:    p.Filters,
		HeadersOnly:       p.HeadersOnly,
		InactiveThreshold: abandoned,
		Replicas:          1,
		MemoryStorage:     true,
	}
	// The server refuses a start beside a policy that does not use it.
	switch p.Policy {
	case jetstream.DeliverByStartSequencePolicy:
		cfg.OptStartSeq = max(p.From, 1)
	case jetstream.DeliverByStartTimePolicy:
		cfg.OptStartTime = &p.Since
	}
	bounded, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	consumer, err := p.Stream.CreateConsumer(bounded, cfg)
	if _, answered := errors.AsType[*jetstream.APIError](err); err != nil && !answered {
		p.remove(ctx, cfg.Name) // it may be there, and only the answer lost
	}
	return consumer, err
}

// remove deletes the consumer of a pass, also when the caller's context has
// ended. If it fails, the server does it after a minute.
func (p Pass) remove(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.Timeout)
	defer cancel()
	_ = p.Stream.DeleteConsumer(ctx, name)
}

// pause waits before the pass is resumed, or until ctx ends.
func pause(ctx context.Context, failure int) error {
	policy := backoff.Policy{Initial: 20 * time.Millisecond, Max: 500 * time.Millisecond}
	sleep.For(ctx, policy.Delay(failure))
	return context.Cause(ctx)
}

// ask finds out what an empty page means, which is no proof of the end: the rest
// may have been removed, or it was sent and did not arrive.
func (p Pass) ask(ctx context.Context, consumer jetstream.Consumer, r *reading) error {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
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
	see     Visit
	most    int    // messages of one page
	pending uint64 // messages behind the last one seen
	last    uint64 // its sequence in the stream
	seen    uint64 // its sequence in the consumer
	got     int    // messages of the last page
}

// page reads up to one page. The request does not wait for messages to come:
// what is stored now is the pass.
func (r *reading) page(ctx context.Context, consumer jetstream.Consumer) (done bool, err error) {
	r.got = 0
	batch, err := consumer.FetchNoWait(int(min(r.pending, uint64(r.most))))
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
