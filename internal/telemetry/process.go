package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"codeberg.org/dataverket/messaging/envelope"
)

// Processor makes the spans of a durable's messages. It is safe for concurrent use.
type Processor struct {
	*Tracer
	durable, stream string
	own             bool // each begins a trace of its own
}

// NewProcessor returns the processor of a durable; own has each message's span
// begin a trace, which is only linked with the one that the message was made in.
func NewProcessor(t *Tracer, durable, stream string, own bool) *Processor {
	return &Processor{Tracer: t, durable: durable, stream: stream, own: own}
}

// Message is what is known of a message when its span begins. Only Subject is
// required.
type Message struct {
	// Subject is what it was published on.
	Subject string
	// Envelope is nil where it cannot be read.
	Envelope *envelope.Envelope
	// Size is that of the body, in bytes.
	Size int
	// Sequence is where it is stored.
	Sequence uint64
	// Attempt counts from 1.
	Attempt int
	// LetterID names the letter that it replays.
	LetterID string
	// Traceparent is what it was made in.
	Traceparent string
	// Site is the one that published it, "" if that is not known; Remote says that it
	// is another one than the consumer's.
	Site   string
	Remote bool
}

// Process begins the span of one attempt. The message's creation is its parent and
// a link; where that is not known, or not wanted as the parent, it is a root: what
// Run was called in is nobody's request. A parent that is not sampled has no child
// that is: asking the SDK about each would be most of what it costs a consumer.
func (p *Processor) Process(ctx context.Context, m Message) (context.Context, Span) {
	if p == nil || !p.On() {
		return ctx, Span{}
	}
	from := remote(m.Traceparent)
	shape := p.shapes.of(m.Subject, p.shape)
	options := shape.options
	if from.IsValid() && !p.own {
		ctx = trace.ContextWithRemoteSpanContext(ctx, from)
		if !from.IsSampled() {
			return ctx, Span{}
		}
		options = options[1:]
	}
	ctx, span := p.tracer.Start(ctx, shape.name, options...)
	s := Span{span}
	if s.sampled() {
		s.link(from)
		span.SetAttributes(m.attributes(shape.attrs)...)
	}
	return ctx, s
}

// attributes adds those of m to those of its shape.
func (m Message) attributes(common []attribute.KeyValue) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, len(common)+9), common...)
	attrs = append(attrs, keySequence.Int64(int64(m.Sequence)), keyAttempt.Int(m.Attempt), keyBodySize.Int(m.Size))
	if m.Envelope != nil {
		attrs = append(attrs, keyID.String(m.Envelope.ID), keyCorrelation.String(m.Envelope.CorrelationID))
	}
	if m.Envelope != nil {
		attrs = appendKnown(attrs, keyDatacenter, m.Envelope.DatacenterID)
	}
	if m.Remote {
		attrs = append(attrs, keyRemote.Bool(true))
	}
	attrs = appendKnown(attrs, keySite, m.Site)
	return appendKnown(attrs, keyReplayOf, m.LetterID)
}

// ProcessBatch begins the span of messages on one subject that are handled
// together, linked with what each was made in. It is a trace of its own, since it
// cannot have several parents. at returns the traceparent of the i-th of n.
func (p *Processor) ProcessBatch(ctx context.Context, subject string, n int, at func(i int) string) (context.Context, Span) {
	if p == nil || !p.On() {
		return ctx, Span{}
	}
	shape := p.shapes.of(subject, p.shape)
	ctx, span := p.tracer.Start(ctx, shape.name, shape.options...)
	s := Span{span}
	s.LinkAll(n, at)
	if s.sampled() {
		span.SetAttributes(shape.attrs...)
		span.SetAttributes(keyBatch.Int(n))
	}
	return ctx, s
}

// shape has the option of a new root first, so that it can be left out.
func (p *Processor) shape(on string) shape {
	return shape{name: opProcess + " " + on, options: []trace.SpanStartOption{
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer),
	}, attrs: []attribute.KeyValue{
		keySystem.String(system), keyOperation.String(opProcess), keyOperationType.String(opProcess),
		keyDestination.String(on), keyDurable.String(p.durable), keyStream.String(p.stream),
	}}
}

// DeadLetter notes that the message became one.
func (s Span) DeadLetter(id, class string) {
	if s.sampled() {
		s.span.AddEvent(eventDeadLetter, trace.WithAttributes(keyLetter.String(id), keyClass.String(class)))
	}
}

// Judged ends the span with what became of the message, and the class of the fault
// if it was one.
func (s Span) Judged(verdict, errorType string) {
	if s.sampled() {
		s.span.SetAttributes(keyVerdict.String(verdict))
	}
	s.End(errorType)
}

// Settle makes the span of telling the server what became of a message: ack, nak or
// term. It is a child of the attempt's, and over at once, since nobody waits for an
// answer.
func (p *Processor) Settle(attempt Span, word, on string) {
	if !attempt.sampled() {
		return
	}
	_, span := p.tracer.Start(attempt.Around(context.Background()), word+" "+on, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		keySystem.String(system), keyOperation.String(word), keyOperationType.String(opSettle),
		keyDestination.String(on), keyDurable.String(p.durable), keyStream.String(p.stream)))
	span.End()
}

// processorKey is the context key; a type of its own cannot collide.
type processorKey struct{}

// WithProcessor returns a ctx that carries p, for a handler that makes the spans of
// its messages itself. Where no spans are made it is ctx.
func WithProcessor(ctx context.Context, p *Processor) context.Context {
	if p == nil || !p.On() {
		return ctx
	}
	return context.WithValue(ctx, processorKey{}, p)
}

// ProcessorFrom returns the processor that ctx carries; nil, which makes no spans,
// without one.
func ProcessorFrom(ctx context.Context) *Processor {
	p, _ := ctx.Value(processorKey{}).(*Processor)
	return p
}
