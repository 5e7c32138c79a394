package telemetry

import (
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
)

// Tracer makes the spans of one component. It is safe for concurrent use; nil makes
// none.
type Tracer struct {
	tracer    trace.Tracer
	follows   trace.TracerProvider // the global one as it was, if it is to be followed
	installed atomic.Bool          // the global provider is an SDK's
	shapes    shapes
}

// NewTracer returns the tracer of a scope with a provider; nil is the global one,
// also when that is set later.
func NewTracer(provider trace.TracerProvider, scope string) *Tracer {
	if provider == nil {
		provider = otel.GetTracerProvider()
	}
	t := &Tracer{}
	switch {
	case follows(provider):
		t.follows = provider
	case idle(provider):
		return nil
	}
	t.tracer = provider.Tracer(scope)
	return t
}

// On reports whether spans go anywhere.
func (t *Tracer) On() bool {
	switch {
	case t == nil:
		return false
	case t.follows == nil || t.installed.Load():
		return true
	}
	// Mostly it is the same as ever, which takes no look at what it is.
	if now := otel.GetTracerProvider(); now == t.follows || idle(now) {
		return false
	}
	t.installed.Store(true)
	return true
}
