package envelope

import (
	"context"
	"errors"
)

// Origin is where a message comes from: what [New] takes from ctx so that no
// call in between has to pass it on (requirements X2, X4). At the edge it is made
// with [NewOrigin]; a handler's ctx already carries the one of its delivery.
type Origin struct {
	// CorrelationID is shared by the whole workflow. Required by [New].
	CorrelationID string
	// CausationID is the id of the message that is being handled; empty at the
	// edge.
	CausationID string
	// Actor is who initiated the action. Required by [New].
	Actor Actor
	// TenantID is the tenant that the work is for. Required by [New] unless
	// PlatformScope is set.
	TenantID string
	// PlatformScope says that the work is for no tenant. It has to be said, so
	// that a forgotten tenant is an error and not a message for everybody.
	// Default false.
	PlatformScope bool
	// Traceparent is the W3C trace context in which the message is made, if
	// any. One that does not parse is not sent: a fault of telemetry must not
	// fail the work.
	Traceparent string
}

// NewOrigin starts a workflow at the edge: a new correlation id, no causation.
// For work without a tenant pass "" and set PlatformScope on the result. Nothing
// is checked here; [New] reports all faults at once.
func NewOrigin(actor Actor, tenantID string) Origin {
	return Origin{CorrelationID: newID().String(), Actor: actor, TenantID: tenantID}
}

// Validate reports, all at once as [*FieldError], what keeps a message from being
// sent under o: a missing correlation or actor, neither a tenant nor PlatformScope,
// or both, and ids that break their rules. Traceparent is not looked at.
func (o Origin) Validate() error {
	return errors.Join(originFaults(&o, true)...)
}

// originKey is the context key; a type of its own cannot collide.
type originKey struct{}

// WithOrigin returns a ctx that carries o. It replaces any origin ctx had; the zero
// Origin removes it.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginFrom returns the origin that ctx carries, and whether it carries one.
func OriginFrom(ctx context.Context) (Origin, bool) {
	o, ok := ctx.Value(originKey{}).(Origin)
	return o, ok && o != Origin{}
}
