package telemetry_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/telemetry"
	"codeberg.org/dataverket/messaging/subject"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func inOrigin(t *testing.T, traceparent string) context.Context {
	o := envelope.NewOrigin("user:ola", "tenant-1")
	o.Traceparent = traceparent
	return envelope.WithOrigin(t.Context(), o)
}

// madeIn returns the trace context that a message is made in.
func madeIn(ctx context.Context) string {
	o, _ := envelope.OriginFrom(ctx)
	return o.Traceparent
}

func provisioned() subject.Subject {
	return subject.Must(subject.Parse("dv.maskin.evt.server.provisioned"))
}

// all makes one span of each kind.
func all(ctx context.Context, t *telemetry.Tracer) {
	_, created := t.Create(ctx, provisioned())
	created.Created(ctx, "id", 1, "DV_MASKIN_EVT", telemetry.Place{})
	created.End("")
	sent := t.Send("DV_MASKIN_EVT", "", "", 1)
	sent.LinkAll(1, func(int) string { return parent })
	sent.Sent(0)
	p := telemetry.NewProcessor(t, "d", "s", false)
	ctx, processed := p.Process(telemetry.WithProcessor(ctx, p), telemetry.Message{Subject: "x", Traceparent: parent})
	processed.DeadLetter("l", "poison")
	processed.Judged("ack", "")
	_, batch := telemetry.ProcessorFrom(ctx).ProcessBatch(ctx, "x", 0, nil)
	batch.End("x")
}

// It is the one test that touches the global providers, of the whole binary.
func TestGlobalProviderCostsNothingUntilAnSDKIsInstalled(t *testing.T) {
	ctx := inOrigin(t, parent)
	waiting := telemetry.NewTracer(nil, telemetry.ScopeOutbox)
	captured := telemetry.NewTracer(otel.GetTracerProvider(), telemetry.ScopeOutbox)
	meters := otel.GetMeterProvider()
	for name, tracer := range map[string]*telemetry.Tracer{
		"global": waiting, "captured": captured, "no-op": telemetry.NewTracer(noop.NewTracerProvider(), telemetry.ScopeOutbox), "nil": nil,
	} {
		require.False(t, tracer.On(), name)
		p := telemetry.NewProcessor(tracer, "d", "s", false)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			made, span := tracer.Create(ctx, provisioned())
			span.Created(made, "id", 1, "DV_MASKIN_EVT", telemetry.Place{})
			span.End("refused")
			_, span = p.Process(telemetry.WithProcessor(ctx, p), telemetry.Message{Traceparent: parent})
			span.Judged("ack", "")
			tracer.Send("DV_MASKIN_EVT", "", "", 1).Sent(1)
		}), name)
	}
	require.False(t, telemetry.Metered(nil))
	require.False(t, telemetry.Metered(meters))
	require.False(t, telemetry.Metered(metricnoop.NewMeterProvider()))

	spans := tracetest.NewInMemoryExporter()
	otel.SetTracerProvider(sdk.NewTracerProvider(sdk.WithSyncer(spans)))
	otel.SetMeterProvider(sdkmetric.NewMeterProvider())
	require.True(t, waiting.On())
	require.True(t, captured.On())
	require.True(t, telemetry.Metered(nil))
	require.True(t, telemetry.Metered(meters))
	require.False(t, telemetry.Metered(metricnoop.NewMeterProvider()))
	all(ctx, waiting)
	require.Len(t, spans.GetSpans(), 4)
}

// The span of a message is a child of the span around it; without one, of what its
// origin tells; and it is linked with that of another trace.
func TestCreationIsAChildOfWhatIsNearest(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	tracer := telemetry.NewTracer(provider, telemetry.ScopeOutbox)
	around, request := provider.Tracer("test").Start(inOrigin(t, ""), "request")
	foreign := envelope.WithOrigin(around, envelope.Origin{CorrelationID: "c", Traceparent: parent})
	for name, c := range map[string]struct {
		ctx    context.Context
		parent string // span id
		links  int
	}{
		"alone": {inOrigin(t, ""), "0000000000000000", 0}, "of the origin": {inOrigin(t, parent), "b7ad6b7169203331", 0},
		"of a request": {around, request.SpanContext().SpanID().String(), 0}, "of a batch": {foreign, request.SpanContext().SpanID().String(), 1},
	} {
		spans.Reset()
		made, span := tracer.Create(c.ctx, provisioned())
		span.End("")
		got := spans.GetSpans()
		require.Len(t, got, 1, name)
		require.Equal(t, c.parent, got[0].Parent.SpanID().String(), name)
		require.Len(t, got[0].Links, c.links, name)
		sc := got[0].SpanContext
		require.Equal(t, "00-"+sc.TraceID().String()+"-"+sc.SpanID().String()+"-01", madeIn(made), name)
	}
}

// What is not sampled still names the trace, so that whoever reads the message does
// not sample it either.
func TestUnsampledCreationIsPassedOnAsSuch(t *testing.T) {
	t.Parallel()
	tracer := telemetry.NewTracer(sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample())), telemetry.ScopeOutbox)
	made, span := tracer.Create(inOrigin(t, parent), provisioned())
	span.End("")
	require.NotEqual(t, parent, madeIn(made))
	require.Regexp(t, "^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-00$", madeIn(made))
}

// Without an SDK the origin's trace goes on; where it has none, that of a span which
// somebody else put into ctx.
func TestWithoutAnSDKTheNearestTraceGoesOn(t *testing.T) {
	t.Parallel()
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, Remote: true})
	around := func(ctx context.Context) context.Context { return trace.ContextWithRemoteSpanContext(ctx, sc) }
	var tracer *telemetry.Tracer
	for want, ctx := range map[string]context.Context{
		"": inOrigin(t, ""), parent: around(inOrigin(t, parent)),
		"00-01000000000000000000000000000000-0200000000000000-00": around(inOrigin(t, "")),
	} {
		made, _ := tracer.Create(ctx, provisioned())
		require.Equal(t, want, madeIn(made))
	}
}

// Memory is bounded where subjects are foreign.
func TestManySubjectsAreTracedWithoutBeingKept(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	p := telemetry.NewProcessor(telemetry.NewTracer(sdk.NewTracerProvider(sdk.WithSyncer(spans)), telemetry.ScopeConsumer), "d", "s", false)
	for i := range 1100 {
		_, span := p.Process(t.Context(), telemetry.Message{Subject: string(rune('a' + i))})
		span.Judged("ack", "")
	}
	require.Len(t, spans.GetSpans(), 1100)
	require.Equal(t, "process "+string(rune('a'+1099)), spans.GetSpans()[1099].Name)
}

// What a message costs that nobody listens to.
func BenchmarkIdle(b *testing.B) {
	tracer := telemetry.NewTracer(nil, telemetry.ScopeConsumer)
	p := telemetry.NewProcessor(tracer, "d", "s", false)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_, span := p.Process(ctx, telemetry.Message{})
		span.Judged("ack", "")
	}
}

// What it costs with an SDK, of a trace that is sampled and of one that is not.
func BenchmarkProcess(b *testing.B) {
	for name, flags := range map[string]string{"sampled": "01", "unsampled": "00"} {
		b.Run(name, func(b *testing.B) {
			tracer := telemetry.NewTracer(sdk.NewTracerProvider(), telemetry.ScopeConsumer)
			p := telemetry.NewProcessor(tracer, "d", "s", false)
			ctx := b.Context()
			m := telemetry.Message{Subject: "dv.maskin.evt.server.provisioned", Traceparent: parent[:53] + flags, Envelope: &envelope.Envelope{ID: "id"}}
			b.ReportAllocs()
			for b.Loop() {
				_, span := p.Process(ctx, m)
				span.Judged("ack", "")
			}
		})
	}
}
