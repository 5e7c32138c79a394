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
	follows   bool        // the global provider
	installed atomic.Bool // the global provider is an SDK's
	shapes    shapes
}

// NewTracer returns the tracer of a scope with a provider; nil is the global one,
// also when that is set later.
func NewTracer(provider trace.TracerProvider, scope string) *Tracer {
	if provider == nil {
		provider = otel.GetTracerProvider()
	}
	t := &Tracer{follows: follows(provider)}
	if idle(provider) && !t.follows {
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
	case !t.follows || t.installed.Load():
		return true
	case idle(otel.GetTracerProvider()):
		return false
	}
	t.installed.Store(true)
	return true
}
