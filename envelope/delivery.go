package envelope

import (
	"context"

	"codeberg.org/dataverket/messaging/subject"
)

// Delivery is one message as a handler meets it: the envelope and how it came.
// It is read-only and lives as long as the handler's call.
type Delivery struct {
	// Envelope is the decoded and validated envelope.
	Envelope *Envelope
	// Subject is the subject the message was first published on, also when this
	// delivery is a replay of a dead letter.
	Subject subject.Subject
	// Header holds the headers as they were stored, own and foreign.
	Header Header
	// Stream and Sequence are where this delivery is stored.
	Stream   string
	Sequence uint64
	// Site is the site that published the message (requirement W1), "" where
	// neither the message nor the consumer's configuration says it. Where the
	// resource belongs is Envelope.DatacenterID.
	Site string
	// Remote says that the message came from another site. It is false where the
	// consumer was not told its own site and no declared source brought it.
	Remote bool
	// Durable is the consumer that received it.
	Durable string
	// Attempt counts from 1.
	Attempt int
	// Redelivered says that the broker brought the message before, here or
	// elsewhere. Attempt may be 1 all the same, where a consumer with a store
	// cannot know whether a handler had begun.
	Redelivered bool
	// LetterID names the dead letter that is being replayed, "" for an ordinary
	// delivery.
	LetterID string
	// Claim is set when the message was parked and is due: the claim under which
	// this process handles it (see [Parked]). Handlers have no use for it.
	Claim string
	// Fence is the lease of an ordered consumer; zero where any instance may
	// handle the message.
	Fence Fence
}

// Starts is what a consumer's store knows of the handler starts of a message.
type Starts struct {
	// Count is the number of starts, the one that begins now included.
	Count int
	// Open is how many starts before this one never ended, in a row: their
	// process died, or is still at it.
	Open int
	// Handled says that nothing was started, because the message is done, or
	// waits parked and will be handled from there.
	Handled bool
}

// Context returns a ctx that carries the delivery's [Origin], so that whatever
// the handler sends is correlated without a parameter (requirement X2): the same
// correlation, actor and tenant (or platform scope), the envelope's id as
// causation, and the trace of the header.
//
// An event of a foreign producer may lack an actor; a handler that answers such
// an event sets its own with [OriginFrom] and [WithOrigin].
func (d *Delivery) Context(ctx context.Context) context.Context {
	return deliveryContext{ctx, d}
}

// deliveryContext makes the origin when somebody asks for it: a handler that sends
// nothing does not.
type deliveryContext struct {
	context.Context
	delivery *Delivery
}

// Value implements context.Context.
func (c deliveryContext) Value(key any) any {
	if key == (originKey{}) {
		return c.delivery.origin()
	}
	return c.Context.Value(key)
}

func (d *Delivery) origin() Origin {
	e := d.Envelope
	return Origin{
		CorrelationID: e.CorrelationID,
		CausationID:   e.ID,
		Actor:         e.Actor,
		TenantID:      e.TenantID,
		PlatformScope: e.TenantID == "",
		Traceparent:   validTraceparent(d.Header.Get(HeaderTraceparent)),
	}
}

// Received is a delivery with its typed data: what a handler gets. m.Envelope.ID
// and m.Data are the usual reads.
type Received[T any] struct {
	*Delivery
	// Data is the decoded payload.
	Data T
}

// AnyType is the Type of a [Route] for every message whose type no other route of its
// consumer names, whatever its version; its Version is 0.
const AnyType = "*"

// Route ties one message type and schema version to a handler, or with [AnyType] all that is left. consumer.On and
// inbox.On make routes; consumer.New takes them.
type Route struct {
	// Type and Version are what the route handles.
	Type    string
	Version int
	// Older are further versions that Handle takes, since the type carries their
	// data forward: see [Upcast]. A message of such a version goes to the route of
	// its own version if the consumer has one, else to the one with the lowest
	// version that takes it.
	Older []int
	// Handle applies the message. Its error is the verdict: nil acknowledges,
	// [Permanent] dead-letters, [RetryAfterError] delays, anything else retries.
	Handle func(context.Context, *Delivery) error
	// OnDead is told that the message became the dead letter letterID, and why,
	// once the letter is stored and before MarkDead. It is called again until it
	// returns nil, also after a crash, and so must bear repeats: whatever has to
	// know of a failure cannot miss it. It also hears of the messages of its type in a
	// version that no route handles. It is nil where nobody has to.
	OnDead func(ctx context.Context, d *Delivery, f *Failure, letterID string) error
	// MarkDead records in the handler's own store that the message became the
	// dead letter letterID, so that later deliveries have no effect. If the
	// effect is there already, by another copy of the message, it returns an
	// error that matches [ErrAlreadyProcessed], and nothing is left for the
	// letter to do. It is nil for a handler without a store.
	MarkDead func(ctx context.Context, d *Delivery, letterID string) error
	// Gathers says that Handle handles its messages together with others, as that
	// of inbox.OnBatch does, and makes the spans of them itself. Default false: the
	// consumer makes a span for each call.
	Gathers bool
}
