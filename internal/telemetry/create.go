package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Create begins the span of a message that is made in ctx, and returns the ctx to
// make it in: its origin tells the span as the trace context of the message, which
// stays that for good (requirement X3).
//
// The parent is the span in ctx: of the request, or of the handler. Without one it
// is the trace of the origin. Where ctx has a span of one trace and an origin of
// another, as in a batch, the span is linked with that of the origin.
//
// Without an SDK the message is made in the origin's trace, or else in that of a
// span in ctx that somebody else made.
func (t *Tracer) Create(ctx context.Context, on subject.Subject) (context.Context, Span) {
	around := trace.SpanContextFromContext(ctx)
	if !t.On() {
		if !around.IsValid() {
			return ctx, Span{}
		}
		if o, ok := envelope.OriginFrom(ctx); ok && o.Traceparent == "" {
			return within(ctx, o, around), Span{}
		}
		return ctx, Span{}
	}
	o, ok := envelope.OriginFrom(ctx)
	if !ok {
		return ctx, Span{} // no message is made without
	}
	parent, from := ctx, remote(o.Traceparent)
	if !around.IsValid() && from.IsValid() {
		parent = trace.ContextWithRemoteSpanContext(ctx, from)
	}
	shape := t.shapes.of(on.String(), createShape)
	_, span := t.tracer.Start(parent, shape.name, shape.options...)
	s := Span{span}
	if s.sampled() {
		span.SetAttributes(shape.attrs...)
	}
	if around.IsValid() && from.TraceID() != around.TraceID() {
		s.link(from)
	}
	if made := span.SpanContext(); made.IsValid() {
		ctx = within(ctx, o, made)
	}
	return ctx, s
}

// within returns ctx with an origin whose trace context is another.
func within(ctx context.Context, o envelope.Origin, sc trace.SpanContext) context.Context {
	o.Traceparent = traceparent(sc)
	return envelope.WithOrigin(ctx, o)
}

// Place is where a message is made, what site it is for, and where its resource
// belongs; "" is not known, or not said.
type Place struct{ Site, ToSite, Datacenter string }

// Created tells what message was made in ctx.
func (s Span) Created(ctx context.Context, id string, size int, stream string, at Place) {
	if s.sampled() {
		o, _ := envelope.OriginFrom(ctx)
		attrs := []attribute.KeyValue{keyID.String(id), keyBodySize.Int(size), keyStream.String(stream), keyCorrelation.String(o.CorrelationID)}
		attrs = appendKnown(attrs, keySite, at.Site)
		attrs = appendKnown(attrs, keyToSite, at.ToSite)
		s.span.SetAttributes(appendKnown(attrs, keyDatacenter, at.Datacenter)...)
	}
}

// appendKnown adds an attribute, unless its value is "".
func appendKnown(attrs []attribute.KeyValue, key attribute.Key, value string) []attribute.KeyValue {
	if value == "" {
		return attrs
	}
	return append(attrs, key.String(value))
}

func createShape(on string) shape {
	return shape{name: opCreate + " " + on, options: []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindProducer),
	}, attrs: []attribute.KeyValue{
		keySystem.String(system), keyOperation.String(opCreate), keyOperationType.String(opCreate), keyDestination.String(on),
	}}
}
