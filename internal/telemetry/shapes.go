package telemetry

import (
	"maps"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// shape is what all spans of one kind on one subject have in common, made once.
//
// Samplers see the name, which holds operation and destination, and the kind. The
// attributes are set on spans that are sampled: given at the start they would be
// half of what one costs that is not, and those are most.
type shape struct {
	name    string
	options []trace.SpanStartOption
	attrs   []attribute.KeyValue
}

// shapes are those of a tracer by subject. Subjects are few and declared; foreign
// ones that come over a wildcard are not kept beyond a bound.
type shapes struct {
	known atomic.Pointer[map[string]*shape]
}

const maxShapes = 1000

func (s *shapes) of(subject string, shapeOf func(string) shape) *shape {
	known := s.known.Load()
	if known != nil {
		if found := (*known)[subject]; found != nil {
			return found
		}
	}
	made := shapeOf(subject)
	next := map[string]*shape{}
	if known != nil {
		if len(*known) >= maxShapes {
			return &made
		}
		maps.Copy(next, *known)
	}
	next[subject] = &made
	s.known.CompareAndSwap(known, &next) // who loses makes it again next time
	return &made
}
