package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/telemetry"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// asConsumer calls a route as a consumer does that makes spans.
func asConsumer(route envelope.Route) (envelope.Route, *sdk.TracerProvider, *tracetest.InMemoryExporter) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	p := telemetry.NewProcessor(telemetry.NewTracer(provider, telemetry.ScopeConsumer), "plattform__from_maskin", "DV_MASKIN_EVT", false)
	handle := route.Handle
	route.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		return handle(telemetry.WithProcessor(ctx, p), d)
	}
	return route, provider, spans
}

func named(spans *tracetest.InMemoryExporter, name string) (found []tracetest.SpanStub) {
	for _, s := range spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

const processed = "process dv.maskin.evt.server.provisioned"

// Messages that are handled together have one span, which is linked with what each
// was made in, and is the parent of what is sent for any of them.
func TestBatchIsOneSpanWithALinkForEachMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(3)
	for i, d := range all {
		d.Envelope.Actor, d.Envelope.TenantID = "user:ola", "tenant-1"
		d.Header = envelope.Header{"traceparent": {fmt.Sprintf("00-0000000000000000000000000000000%d-b7ad6b716920333%d-01", i+1, i)}}
	}
	var out *outbox.Outbox
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(3), func(ctx context.Context, tx pgx.Tx, got []received) error {
		if err := out.Enqueue(got[1].Context(ctx), tx, provisioned.New("srv-1", serverV1{Hostname: "h"})); err != nil {
			return err
		}
		return applyAll(ctx, tx, got)
	})
	require.True(t, route.Gathers)
	route, provider, spans := asConsumer(route)
	out, err := outbox.New(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})}},
		outbox.Config{TracerProvider: provider})
	require.NoError(t, err)
	requireNone(t, together(t, route, all...))
	batch := named(spans, processed)
	require.Len(t, batch, 1)
	require.False(t, batch[0].Parent.IsValid())
	require.Len(t, batch[0].Links, 3)
	for i, l := range batch[0].Links {
		require.Equal(t, fmt.Sprintf("0000000000000000000000000000000%d", i+1), l.SpanContext.TraceID().String())
	}
	created := named(spans, "create dv.maskin.evt.server.provisioned")
	require.Len(t, created, 1)
	require.Equal(t, batch[0].SpanContext.SpanID(), created[0].Parent.SpanID())
	require.Len(t, created[0].Links, 1, "with what it was sent for")
	require.Equal(t, batch[0].Links[1].SpanContext.TraceID(), created[0].Links[0].SpanContext.TraceID())
}

// A batch that fails is a span with an error, and each message, handled alone, one of
// its own.
func TestMessagesOfAFailedBatchHaveSpansOfTheirOwn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(2)
	route, _, spans := asConsumer(inbox.OnBatch(quiet(t, b), provisioned, inbox.FullBatch(2), func(ctx context.Context, tx pgx.Tx, got []received) error {
		if len(got) > 1 || got[0].Sequence == 2 {
			return errors.New("no such rack")
		}
		return applyAll(ctx, tx, got)
	}))
	errs := together(t, route, all...)
	require.NoError(t, errs[0])
	require.Error(t, errs[1])
	failed, ok := 0, 0
	for _, s := range named(spans, processed) {
		if s.Status.Code == codes.Error {
			failed++
		} else {
			ok++
		}
	}
	require.Equal(t, 2, failed, "the batch, and the message that failed alone")
	require.Equal(t, 1, ok)
}
