package dvtest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// Deliverable is what [Deliver] takes: the draft that a producer would enqueue, or
// a complete message, such as that of [Enqueued.Message] or envelope.New.
type Deliverable interface {
	envelope.Draft | envelope.Message
}

// DeliverOption says how a message comes: [From], [WithOrigin] and [AtAttempt].
type DeliverOption func(*delivering)

// delivering is one call of Deliver.
type delivering struct {
	source    subject.Service
	origin    envelope.Origin
	attempt   int
	draftOnly []string // options that a complete message has no use for
}

// From sets the sender of a draft. Default: the service of the message type, which
// of an event is the only one that can send it; of a command it is the addressee,
// so say who asks where the handler looks at it.
func From(source subject.Service) DeliverOption {
	return func(d *delivering) { d.source, d.draftOnly = source, append(d.draftOnly, "From") }
}

// WithOrigin sets actor, tenant, correlation and trace of a draft. Default: a new
// correlation, the actor "system:dvtest" and the tenant "tenant-dvtest".
func WithOrigin(o envelope.Origin) DeliverOption {
	return func(d *delivering) { d.origin, d.draftOnly = o, append(d.draftOnly, "WithOrigin") }
}

// AtAttempt says which attempt it is, from 1. Default 1.
func AtAttempt(n int) DeliverOption {
	return func(d *delivering) { d.attempt = n }
}

// Deliver runs the handler of a route, from inbox.On or consumer.On, on one message
// and returns its verdict, without a broker and in the time the handler takes. With
// inbox.On the transaction is real: it is committed or rolled back before Deliver
// returns.
//
// The message takes the way it takes in production: envelope and headers are
// written and read again as strictly as the relay and the consumer do, subject and
// headers are held against the envelope, and ctx carries the origin, so that what
// the handler enqueues is correlated. A message that the consumer would not hand to
// this route fails the test: one of another type or version, a draft that
// outbox.Enqueue would refuse, headers that contradict.
//
// The verdict is the handler's error as it is: see envelope.IsPermanent,
// envelope.RetryAfterError and envelope.ErrAlreadyProcessed. Nothing is retried or
// dead-lettered, and a panic is not caught, so that the test shows its stack.
func Deliver[M Deliverable](tb testing.TB, route envelope.Route, m M, opts ...DeliverOption) error {
	tb.Helper()
	_, d := delivery(tb, route, m, opts)
	return route.Handle(d.Context(tb.Context()), d)
}

// DeliverTwice delivers one message two times, as a broker does after an ack was
// lost, and fails the test unless the first is handled and the second does no harm:
// on a route of inbox.On its verdict must be envelope.ErrAlreadyProcessed, on one
// of consumer.On nil or that. It returns the message, for [RequireHandledOnce].
//
// What a handler of consumer.On leaves behind is for the test to compare: nobody
// else knows its effect.
func DeliverTwice[M Deliverable](tb testing.TB, route envelope.Route, m M, opts ...DeliverOption) envelope.Message {
	tb.Helper()
	message, first := delivery(tb, route, m, opts)
	if err := route.Handle(first.Context(tb.Context()), first); err != nil {
		tb.Fatalf("dvtest: the first delivery of %s failed: %v", name(message), err)
	}
	_, second := delivery(tb, route, message, []DeliverOption{AtAttempt(first.Attempt + 1)})
	err := route.Handle(second.Context(tb.Context()), second)
	switch repeated := errors.Is(err, envelope.ErrAlreadyProcessed); {
	case err != nil && !repeated:
		tb.Fatalf("dvtest: the second delivery of %s failed, and would be retried or dead-lettered although the effect is there: %v", name(message), err)
	case err == nil && route.MarkDead != nil:
		// Only a route with a store marks the dead, and a store remembers.
		tb.Fatalf("dvtest: the second delivery of %s was handled again: want envelope.ErrAlreadyProcessed", name(message))
	}
	return message
}

// delivery makes the message of m, and the delivery that the consumer would make
// of it.
func delivery[M Deliverable](tb testing.TB, route envelope.Route, m M, opts []DeliverOption) (envelope.Message, *envelope.Delivery) {
	tb.Helper()
	if route.Handle == nil {
		tb.Fatalf("dvtest: the route of %s v%d has no handler; pass a function and an inbox to consumer.On or inbox.On", route.Type, route.Version)
	}
	typeName := route.Type
	if draft, ok := any(m).(envelope.Draft); ok && typeName == envelope.AnyType {
		typeName = draft.TypeName()
	}
	how := delivering{source: owner(typeName), attempt: 1, origin: envelope.NewOrigin("system:dvtest", "tenant-dvtest")}
	for _, o := range opts {
		o(&how)
	}
	if how.attempt < 1 {
		tb.Fatalf("dvtest: AtAttempt(%d): attempts count from 1", how.attempt)
	}
	message := how.message(tb, route, m)
	d, err := receive(message)
	if err != nil {
		tb.Fatalf("dvtest: no handler would see this message: %v", err)
	}
	if v := d.Envelope.SchemaVersion(); route.Type != envelope.AnyType &&
		(d.Envelope.Type != route.Type || v != route.Version && !slices.Contains(route.Older, v)) {
		tb.Fatalf("dvtest: the message is %s v%d, but the route handles %s v%d: a consumer with this route alone would dead-letter it",
			d.Envelope.Type, v, route.Type, route.Version)
	}
	d.Attempt, d.Redelivered = how.attempt, how.attempt > 1
	return message, d
}

// message makes the message that is delivered.
func (how *delivering) message(tb testing.TB, route envelope.Route, m any) envelope.Message {
	tb.Helper()
	if complete, ok := m.(envelope.Message); ok {
		if len(how.draftOnly) > 0 {
			tb.Fatalf("dvtest: %s: a complete message says this itself; deliver a draft to change it", strings.Join(how.draftOnly, ", "))
		}
		if complete.Envelope == nil {
			tb.Fatalf("dvtest: the message has no envelope; make it with envelope.New, or deliver a draft")
		}
		return complete
	}
	message, err := envelope.New(envelope.WithOrigin(tb.Context(), how.origin), how.source, m.(envelope.Draft))
	if err != nil {
		tb.Fatalf("dvtest: outbox.Enqueue would refuse this draft (sent by %s to the route of %s v%d): %v",
			how.source, route.Type, route.Version, err)
	}
	return message
}

// owner returns the service that a type's name begins with.
func owner(typeName string) subject.Service {
	first, _, _ := strings.Cut(typeName, ".")
	s, _ := subject.ParseService(first) // an invalid one is refused by envelope.New
	return s
}

// receive takes a message over the wire: it is written, read and checked as the
// outbox, the relay and the consumer do.
func receive(m envelope.Message) (*envelope.Delivery, error) {
	data, err := m.Envelope.Encode()
	if err != nil {
		return nil, err
	}
	e, err := envelope.Decode(data)
	if err != nil {
		return nil, err
	}
	header, err := envelope.UnmarshalHeader(envelope.MarshalHeader(m.Header()))
	if err != nil {
		return nil, err
	}
	on, err := subject.Parse(m.Subject.String())
	if err != nil {
		return nil, err
	}
	if on.Family() == subject.FamilySiteCommand { // as it arrives
		if on, err = subject.Cmd(on.Service(), on.Action()); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(e.CheckSubject(on), e.CheckHeader(header)); err != nil {
		return nil, err
	}
	return &envelope.Delivery{
		Envelope: e, Subject: on, Header: header, Durable: "dvtest", Stream: streamOf(on), Sequence: 1,
	}, nil
}

// streamOf names the stream that a subject belongs to where nobody declared
// otherwise.
func streamOf(s subject.Subject) string {
	switch s.Family() {
	case subject.FamilyCommand:
		return topology.Commands(s.Service(), topology.Limits{}).Name
	case subject.FamilyEvent:
		return topology.Events(s.Service(), topology.Limits{}).Name
	}
	return ""
}

// name shows which message it is.
func name(m envelope.Message) string { return m.Envelope.Type + " " + m.Envelope.ID }
