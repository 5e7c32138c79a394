package history

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Message is one stored message.
type Message struct {
	// Delivery is the message as a handler would get it, without Durable and
	// Attempt. Of one that comes with a *MessageError it holds what is known.
	envelope.Delivery
	// StoredAt is when the stream stored it, by the server's clock.
	StoredAt time.Time
	// Bytes are what was published.
	Bytes []byte
}

// Read yields the messages that q means, in the order of their stream, each once,
// as they were stored when it began.
//
// An error of type [*MessageError] is about the message beside it, and the loop may
// go on; every other error is the last one: [*LimitError] where a bound of q ended
// the read, the cause of ctx, ErrNoStream, faults of q as [*FieldError]. Leaving the
// loop early is fine. Read is safe for concurrent use.
func Read(ctx context.Context, js jetstream.JetStream, q Query) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		r := reading{yield: yield}
		if err := r.run(ctx, js, q); err != nil && !r.left {
			yield(Message{}, err)
		}
	}
}

// ReadAs is Read for the messages of one type, with their data. Query.Filter is by
// default the subject of the type. Messages of other types are passed over; one of
// the type in a version that t neither has nor carries forward, or with data that
// does not fit, is a [*MessageError].
func ReadAs[T any](ctx context.Context, js jetstream.JetStream, t envelope.Type[T], q Query) iter.Seq2[envelope.Received[T], error] {
	if q.Filter.IsZero() {
		q.Filter = subject.Exactly(t.Subject())
	}
	return func(yield func(envelope.Received[T], error) bool) {
		r := reading{only: t.Name(), yield: func(m Message, err error) bool {
			received := envelope.Received[T]{Delivery: &m.Delivery}
			if err == nil {
				received.Data, err = t.Decode(m.Envelope)
				if err != nil {
					err = &MessageError{m.Stream, m.Sequence, err}
				}
			}
			return yield(received, err)
		}}
		if err := r.run(ctx, js, q); err != nil && !r.left {
			yield(envelope.Received[T]{}, err)
		}
	}
}

// errTimeout is the cause of a read that took too long.
var errTimeout = errors.New("Query.Timeout")

// reading is one read under way.
type reading struct {
	Query
	only  string // the only type, "" for any
	yield func(Message, error) bool

	begun   uint64 // the last sequence when it began
	read    int
	yielded int
	next    uint64 // the sequence behind the last message that was read
	left    bool   // the caller has left the loop
	limit   string // the bound that ended it
}

// run reads to the end, or to a bound.
func (r *reading) run(parent context.Context, js jetstream.JetStream, q Query) error {
	if js == nil {
		return &FieldError{"js", "is nil: pass the JetStream of natsconn.Conn"}
	}
	if err := q.validate(); err != nil {
		return err
	}
	r.Query = q.withDefaults()
	ctx, cancel := context.WithTimeoutCause(parent, r.Timeout, errTimeout)
	defer cancel()
	stream, err := open(ctx, js, r.Stream)
	if err == nil {
		r.begun, r.next = stream.CachedInfo().State.LastSeq, r.From
		err = r.pass(stream).Run(ctx, r.see)
	}
	switch {
	case r.left:
		return nil
	case parent.Err() == nil && errors.Is(context.Cause(ctx), errTimeout) && err != nil:
		r.limit = "Timeout"
	case err != nil:
		return err
	}
	if r.limit == "" {
		return nil
	}
	return &LimitError{Limit: r.limit, Stream: r.Stream, Next: r.next}
}

// see takes one message.
func (r *reading) see(raw jetstream.Msg, meta *jetstream.MsgMetadata) (more bool, err error) {
	sequence := meta.Sequence.Stream
	if sequence > r.begun || !r.Until.IsZero() && !meta.Timestamp.Before(r.Until) {
		return false, nil
	}
	switch {
	case r.yielded >= r.Max:
		r.limit = "Max"
	case r.read >= r.MaxRead:
		r.limit = "MaxRead"
	}
	if r.limit != "" {
		r.next = sequence
		return false, nil
	}
	r.read++
	r.next = sequence + 1
	m, err := messageOf(raw, meta)
	if !r.matches(m.Envelope) || m.Envelope != nil && r.only != "" && r.only != m.Envelope.Type {
		return true, nil
	}
	if err != nil {
		err = &MessageError{m.Stream, m.Sequence, err}
	}
	r.yielded++
	r.left = !r.yield(m, err)
	return !r.left, nil
}

// messageOf reads a stored message as a consumer would.
func messageOf(raw jetstream.Msg, meta *jetstream.MsgMetadata) (Message, error) {
	m := Message{StoredAt: meta.Timestamp.UTC(), Bytes: raw.Data()}
	m.Header, m.Stream, m.Sequence = envelope.Header(raw.Headers()), meta.Stream, meta.Sequence.Stream
	on, subjectErr := subject.Parse(raw.Subject())
	m.Subject = on
	e, err := envelope.Decode(raw.Data())
	if err != nil {
		return m, errors.Join(err, subjectErr)
	}
	m.Envelope = e
	if subjectErr != nil {
		return m, subjectErr
	}
	return m, errors.Join(e.CheckSubject(on), e.CheckHeader(m.Header))
}
