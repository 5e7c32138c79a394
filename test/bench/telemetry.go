package main

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

// telemetryRows measures what spans and metrics cost relay and consumer: without
// an SDK, beside providers that are known to do nothing; and with one that samples
// a tenth of the traces and throws them away.
func telemetryRows(ctx context.Context, b *bench) ([]Row, error) {
	sdk, end := sampling()
	defer end(ctx)
	all := []providers{{noop.NewTracerProvider(), metricnoop.NewMeterProvider()}, {}, sdk}
	relays, err := b.telemetryOfRelays(ctx, all)
	if err != nil {
		return nil, err
	}
	consumers, err := b.telemetryOfConsumers(ctx, all)
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("telemetry/consumer-idle", "consumer without an SDK / with no-op providers", "msg/s", 0.97, consumers[1], consumers[0]),
		ratioRow("telemetry/consumer", "consumer with an SDK, 10 % sampled, and metrics / without", "msg/s", 0.9, consumers[2], consumers[1]),
		ratioRow("telemetry/relay-idle", "relay without an SDK / with no-op providers", "msg/s", 0.97, relays[1], relays[0]),
		ratioRow("telemetry/relay", "relay with an SDK, 10 % sampled, and metrics / without", "msg/s", 0.9, relays[2], relays[1]),
	}, nil
}

// telemetryOfRelays measures relays with no-op providers, without an SDK, and with
// one. Each row was made in a trace.
func (b *bench) telemetryOfRelays(ctx context.Context, p []providers) ([][]float64, error) {
	db, err := b.database(ctx, "telemetry")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	around := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	if err := fill(trace.ContextWithSpanContext(ctx, around), db, b.sizes.backlog); err != nil {
		return nil, err
	}
	if err := settle(ctx, db); err != nil {
		return nil, err
	}
	return b.interleave(ctx,
		side{"relay, off", b.redrainWith(db, p[0])},
		side{"relay, no SDK", b.redrainWith(db, p[1])},
		side{"relay, 10 % sampled", b.redrainWith(db, p[2])},
	)
}

// telemetryOfConsumers measures consumers in the same way.
func (b *bench) telemetryOfConsumers(ctx context.Context, p []providers) ([][]float64, error) {
	feed, err := b.feedOf(ctx, &feed{size: b.sizes.consumed, trace: tenthSampled})
	if err != nil {
		return nil, err
	}
	defer feed.close()
	return b.interleave(ctx,
		side{"consumer, off", feed.consumeWith(p[0])},
		side{"consumer, no SDK", feed.consumeWith(p[1])},
		side{"consumer, 10 % sampled", feed.consumeWith(p[2])},
	)
}

// providers are what a component is told to use.
type providers struct {
	traces  trace.TracerProvider
	figures metric.MeterProvider
}

// tenthSampled is the trace that the i-th message was made in; every tenth was
// sampled.
func tenthSampled(i int) string {
	flags := "00"
	if i%10 == 0 {
		flags = "01"
	}
	return fmt.Sprintf("00-%032x-%016x-%s", i+1, i+1, flags)
}

// sampling is an SDK that follows the producer's decision, and samples a tenth of
// its own traces.
func sampling() (p providers, end func(context.Context)) {
	tp := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(0.1))),
		sdktrace.WithBatcher(tracetest.NewNoopExporter()))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	return providers{tp, mp}, func(ctx context.Context) { _ = errors.Join(tp.Shutdown(ctx), mp.Shutdown(ctx)) }
}

// consumeWith measures our consumer with a handler that counts.
func (f *feed) consumeWith(p providers) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		left := newCountdown(f.size)
		cfg := consumer.Config{TracerProvider: p.traces, MeterProvider: p.figures}
		return f.run(ctx, cfg, left, consumer.On(counter, func(context.Context, envelope.Received[counted]) error {
			left.done()
			return nil
		}))
	}
}

// redrainWith publishes the whole table once more, into a new stream.
func (b *bench) redrainWith(db *database, p providers) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if err := markUnpublished(ctx, db); err != nil {
			return 0, err
		}
		return b.drainWith(ctx, db, b.sizes.backlog, outbox.RelayConfig{TracerProvider: p.traces, MeterProvider: p.figures})
	}
}
