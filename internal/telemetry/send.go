package telemetry

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Send begins the span of a page of messages that is published to a stream.
// subject is theirs, "" if they have several, and site the relay's, "" if it knows
// none. It is a trace of its own, linked with what the messages were made in: it never
// replaces that.
func (t *Tracer) Send(stream, subject, site string, messages int) Span {
	if !t.On() {
		return Span{}
	}
	name := opSend
	attrs := appendKnown([]attribute.KeyValue{keySystem.String(system), keyOperation.String(opSend), keyOperationType.String(opSend),
		keyStream.String(stream), keyBatch.Int(messages)}, keySite, site)
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithNewRoot(), trace.WithAttributes(attrs...)}
	if subject != "" {
		subject = strings.Clone(subject) // of a page's memory
		name += " " + subject
		options = append(options, trace.WithAttributes(keyDestination.String(subject)))
	}
	_, span := t.tracer.Start(context.Background(), name, options...)
	return Span{span}
}

// LinkAll links with what messages were made in, the first 128 that tell. at
// returns the traceparent of the i-th of n.
func (s Span) LinkAll(n int, at func(i int) string) {
	if !s.sampled() {
		return
	}
	for i, links := 0, 0; i < n && links < maxLinks; i++ {
		if s.link(remote(at(i))) {
			links++
		}
	}
}

// Sent ends the span of a page that is stored, some of it before.
func (s Span) Sent(duplicates int) {
	if s.span == nil {
		return
	}
	if duplicates > 0 {
		s.span.SetAttributes(keyDuplicates.Int(duplicates))
	}
	s.span.End()
}
