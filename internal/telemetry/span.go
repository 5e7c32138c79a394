package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Span is a span, or none: the zero value takes everything and does nothing.
//
// No text of an error and nothing of a payload goes into it, since traces are read
// more widely than logs: errors are named by their class.
type Span struct{ span trace.Span }

// Is reports whether there is a span.
func (s Span) Is() bool { return s.span != nil }

// Around returns a ctx that carries the span, ctx itself without one.
func (s Span) Around(ctx context.Context) context.Context {
	if s.span == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, s.span)
}

// TraceID returns the id of the trace, "" without a span.
func (s Span) TraceID() string {
	if s.span == nil || !s.span.SpanContext().IsValid() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// End ends it. errorType is a class out of a short list, "" for success.
func (s Span) End(errorType string) {
	if s.span == nil {
		return
	}
	s.fail(errorType)
	s.span.End()
}

func (s Span) fail(errorType string) {
	if errorType != "" && s.sampled() {
		s.span.SetAttributes(keyErrorType.String(errorType))
		s.span.SetStatus(codes.Error, "")
	}
}

// sampled reports whether somebody sees what is added to it.
func (s Span) sampled() bool { return s.span != nil && s.span.IsRecording() }

// link adds a link to what a message was made in, if it tells.
func (s Span) link(to trace.SpanContext) bool {
	if to.IsValid() {
		s.span.AddLink(trace.Link{SpanContext: to})
	}
	return to.IsValid()
}
