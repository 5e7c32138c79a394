package consumer_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/telemetry"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// tracing keeps every span in memory.
type tracing struct {
	*sdk.TracerProvider
	spans *tracetest.InMemoryExporter
}

func newTracing() tracing {
	spans := tracetest.NewInMemoryExporter()
	return tracing{sdk.NewTracerProvider(sdk.WithSyncer(spans)), spans}
}

func (tr tracing) config(c *consumer.Config) { c.TracerProvider = tr.TracerProvider }

// await returns the first n spans of a name, in the order in which they ended.
func (tr tracing) await(t *testing.T, name string, n int) []tracetest.SpanStub {
	t.Helper()
	var found []tracetest.SpanStub
	require.Eventually(t, func() bool {
		found = nil
		for _, s := range tr.spans.GetSpans() {
			if s.Name == name {
				found = append(found, s)
			}
		}
		return len(found) >= n
	}, soon, tick, "no %d spans %q", n, name)
	return found
}

// attr returns an attribute as text.
func attr(s tracetest.SpanStub, key attribute.Key) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

// linksOf returns the ids of the spans that s is linked with.
func linksOf(s tracetest.SpanStub) (ids []trace.SpanID) {
	for _, l := range s.Links {
		ids = append(ids, l.SpanContext.SpanID())
	}
	return ids
}

// publisher is maskin's outbox with its relay.
func (p *platform) publisher(t *testing.T, tr tracing) *outbox.Outbox {
	t.Helper()
	out, err := outbox.New(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{p.declared.Stream}}, outbox.Config{TracerProvider: tr})
	require.NoError(t, err)
	relay, err := outbox.NewRelay(out, p.pool, p.js, outbox.RelayConfig{TracerProvider: tr, PollInterval: 10 * time.Millisecond})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return out
}

// enqueue commits a message in ctx.
func (p *platform) enqueue(ctx context.Context, t *testing.T, out *outbox.Outbox, hosts ...string) {
	t.Helper()
	ctx = envelope.WithOrigin(ctx, envelope.NewOrigin("user:ola", "tenant-1"))
	require.NoError(t, pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		for _, host := range hosts {
			if err := out.Enqueue(ctx, tx, provisioned.New("srv-"+host, serverV1{Hostname: host})); err != nil {
				return err
			}
		}
		return nil
	}))
}

// The row of the message, of the request it was made in, and of what its handler
// sends, are one trace; the relay's page is another, linked with it.
func TestOneTraceFromARequestToWhatTheHandlerSends(t *testing.T) {
	t.Parallel()
	p, tr := setupPlatform(t, topology.Limits{MaxBytes: 16 << 20}), newTracing()
	out := p.publisher(t, tr)
	in, err := inbox.New(p.pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	route := inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		if m.Data.Hostname != "first" {
			return nil
		}
		return out.Enqueue(ctx, tx, provisioned.New("srv-second", serverV1{Hostname: "second"}))
	})
	c, err := consumer.New(p.js, p.queue, p.bundle.config(tr.config), route)
	require.NoError(t, err)
	start(t, c)

	ctx, request := tr.Tracer("test").Start(t.Context(), "request")
	p.enqueue(ctx, t, out, "first")
	request.End()

	const on = "dv.maskin.evt.server.provisioned"
	handled := tr.await(t, "process "+on, 2)
	created := tr.await(t, "create "+on, 2)
	sent := tr.await(t, "send "+on, 2)
	for i := range created {
		require.Equal(t, trace.SpanKindProducer, created[i].SpanKind)
		require.Equal(t, trace.SpanKindClient, sent[i].SpanKind)
		require.Equal(t, trace.SpanKindConsumer, handled[i].SpanKind)
		require.Equal(t, request.SpanContext().TraceID(), created[i].SpanContext.TraceID())
		require.Equal(t, created[i].SpanContext.TraceID(), handled[i].SpanContext.TraceID())
		require.Equal(t, created[i].SpanContext.SpanID(), handled[i].Parent.SpanID())
		require.Equal(t, []trace.SpanID{created[i].SpanContext.SpanID()}, linksOf(handled[i]))
		require.Equal(t, []trace.SpanID{created[i].SpanContext.SpanID()}, linksOf(sent[i]))
		require.NotEqual(t, created[i].SpanContext.TraceID(), sent[i].SpanContext.TraceID())
		require.Equal(t, "1", attr(sent[i], "messaging.batch.message_count"))
		require.Equal(t, "DV_MASKIN_EVT", attr(sent[i], "messaging.nats.stream"))
		require.Equal(t, attr(created[i], "messaging.message.id"), attr(handled[i], "messaging.message.id"))
		require.Equal(t, attr(created[0], "messaging.message.conversation_id"), attr(handled[i], "messaging.message.conversation_id"))
		require.Equal(t, "ack", attr(handled[i], "messaging.nats.verdict"))
		require.Equal(t, codes.Unset, handled[i].Status.Code)
	}
	require.NotEmpty(t, attr(created[0], "messaging.message.conversation_id"))
	require.Equal(t, request.SpanContext().SpanID(), created[0].Parent.SpanID())
	require.Equal(t, handled[0].SpanContext.SpanID(), created[1].Parent.SpanID())
	require.Equal(t, "plattform__from_maskin", attr(handled[0], "messaging.consumer.group.name"))
}

// A page of many messages has one span, linked with each.
func TestPageIsOneSpanWithManyLinks(t *testing.T) {
	t.Parallel()
	p, tr := setupPlatform(t, topology.Limits{MaxBytes: 16 << 20}), newTracing()
	out := p.publisher(t, tr)
	p.enqueue(t.Context(), t, out, numbered(200)...)
	sent := tr.await(t, "send dv.maskin.evt.server.provisioned", 1)
	require.Equal(t, "200", attr(sent[0], "messaging.batch.message_count"))
	require.Len(t, sent[0].Links, 128)
}

// The replay of a dead letter continues the trace that the message was made in.
func TestReplayOfADeadLetterIsLinkedWithTheOriginal(t *testing.T) {
	t.Parallel()
	p, tr := setupPlatform(t, topology.Limits{MaxBytes: 16 << 20}), newTracing()
	out := p.publisher(t, tr)
	in, err := inbox.New(p.pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	route := inbox.On(in, provisioned, func(context.Context, pgx.Tx, received) error {
		if p.fixed.Load() {
			return nil
		}
		return envelope.Permanent(errBroken)
	})
	c, err := consumer.New(p.js, p.queue, p.bundle.config(tr.config), route)
	require.NoError(t, err)
	start(t, c)
	p.enqueue(t.Context(), t, out, "bad")
	const on = "dv.maskin.evt.server.provisioned"
	failed := tr.await(t, "process "+on, 1)[0]
	require.Equal(t, codes.Error, failed.Status.Code)
	require.Empty(t, failed.Status.Description)
	require.Equal(t, "poison", attr(failed, "error.type"))
	require.Equal(t, "dead_letter", attr(failed, "messaging.nats.verdict"))
	letter := p.letters(t)[0].ID
	require.Len(t, failed.Events, 1)
	require.Equal(t, "dead_letter", failed.Events[0].Name)
	require.Contains(t, failed.Events[0].Attributes, attribute.String("messaging.nats.dead_letter.id", letter))

	p.fixed.Store(true)
	_, err = p.queue.Replay(t.Context(), letter, dlq.Request{By: "operator:ola", Reason: "fixed"})
	require.NoError(t, err)
	replayed := tr.await(t, "process "+on, 2)[1]
	created := tr.await(t, "create "+on, 1)[0]
	require.Equal(t, []trace.SpanID{created.SpanContext.SpanID()}, linksOf(replayed))
	require.Equal(t, created.SpanContext.TraceID(), replayed.SpanContext.TraceID())
	require.Equal(t, letter, attr(replayed, "messaging.nats.replay_of"))
	require.Equal(t, "ack", attr(replayed, "messaging.nats.verdict"))
}

// traced is message with a trace context.
func traced(t *testing.T, b *bundle, name string) {
	t.Helper()
	m := message(t, name)
	m.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	b.send(t, m)
}

// A message without a trace begins one, whatever Run was called in; and so does
// each with OwnTraces, linked with the trace that it was made in.
func TestTracesOfTheirOwnAreRoots(t *testing.T) {
	t.Parallel()
	b, tr := setup(t), newTracing()
	b.run(t, b.config(tr.config, func(c *consumer.Config) { c.OwnTraces = true }), handle(func(context.Context, received) error { return nil }))
	traced(t, b, "a")
	b.publish(t, "b")
	spans := tr.await(t, "process dv.maskin.evt.server.provisioned", 2)
	links := 0
	for _, s := range spans {
		require.False(t, s.Parent.IsValid())
		links += len(s.Links)
	}
	require.Equal(t, 1, links)
}

// Each attempt is a span, whose class of fault is one of a short list.
func TestVerdictsAreOnSpansAndNoErrorText(t *testing.T) {
	t.Parallel()
	b, tr := setup(t), newTracing()
	b.run(t, b.config(tr.config, func(c *consumer.Config) { c.HandlerTimeout = time.Second }), handle(func(ctx context.Context, m received) error {
		switch m.Attempt {
		case 1:
			return errBroken
		case 2:
			panic("boom")
		case 3:
			return envelope.RetryAfter(time.Millisecond, errBroken)
		case 4:
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}))
	traced(t, b, "a")
	unreadable := message(t, "x")
	unreadable.Data = []byte("{")
	b.send(t, unreadable)
	b.settled(t)
	var verdicts []string
	for _, s := range tr.await(t, "process dv.maskin.evt.server.provisioned", 6) {
		verdicts = append(verdicts, attr(s, "messaging.nats.verdict")+" "+attr(s, "error.type"))
		require.Empty(t, s.Status.Description)
		require.Equal(t, attr(s, "error.type") != "", s.Status.Code == codes.Error)
	}
	slices.Sort(verdicts)
	require.Equal(t, []string{"ack ", "dead_letter decode", "retry panic", "retry retry", "retry retry_after", "retry timeout"}, verdicts)
}

// An ordered consumer has a span for each attempt, too.
func TestOrderedAttemptsAreSpans(t *testing.T) {
	t.Parallel()
	l, tr := setupLedger(t), newTracing()
	l.run(t, l.ordered(tr.config), l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if m.Attempt == 1 && m.Sequence == 1 {
			return errBroken
		}
		return nil
	}))
	l.count(t, "a", 1, 2)
	l.awaitEffects(t, "a", 1, 2)
	var verdicts []string
	for _, s := range tr.await(t, "process dv.maskin.evt.counter.raised", 3) {
		verdicts = append(verdicts, attr(s, "messaging.nats.verdict"))
	}
	require.Equal(t, []string{"retry", "ack", "ack"}, verdicts)
}

// Where nobody makes spans, what a message was made in goes on all the same.
func TestWithoutAnSDKTheTraceIsPassedOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	seen := make(chan string, 1)
	b.run(t, b.config(), handle(func(ctx context.Context, _ received) error {
		o, ok := envelope.OriginFrom(ctx)
		if !ok {
			return errors.New("no origin")
		}
		seen <- o.Traceparent
		return nil
	}))
	traced(t, b, "a")
	require.Equal(t, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", <-seen)
}

// A handler that handles its messages together makes their spans with what its ctx
// carries; the consumer makes one only for the burial of a message.
func TestGatheringHandlerMakesTheSpansItself(t *testing.T) {
	t.Parallel()
	b, tr := setup(t), newTracing()
	route := handle(func(ctx context.Context, m received) error {
		_, span := telemetry.ProcessorFrom(ctx).ProcessBatch(ctx, "together", 1, func(int) string { return "" })
		span.End("")
		if m.Data.Hostname == "poison" {
			return envelope.Permanent(errBroken)
		}
		return nil
	})
	route.Gathers = true
	b.run(t, b.config(tr.config), route)
	b.publish(t, "a", "poison")
	tr.await(t, "process together", 2)
	buried := tr.await(t, "process dv.maskin.evt.server.provisioned", 1)
	require.Equal(t, "dead_letter", attr(buried[0], "messaging.nats.verdict"))
	b.settled(t)
	require.Len(t, tr.spans.GetSpans(), 3)
}

// What the server is told of each delivery is a span of its own where that is
// wanted, below the attempt; else it is an attribute only.
func TestSettlementsAreSpansOnRequest(t *testing.T) {
	t.Parallel()
	for _, wanted := range []bool{true, false} {
		b, tr := setup(t), newTracing()
		b.run(t, b.config(tr.config, func(c *consumer.Config) { c.SettleSpans = wanted }), handle(func(_ context.Context, m received) error {
			switch {
			case m.Data.Hostname == "bad":
				return envelope.Permanent(errBroken)
			case m.Attempt == 1:
				return errBroken
			}
			return nil
		}))
		b.publish(t, "good", "bad")
		const on = " dv.maskin.evt.server.provisioned"
		attempts := tr.await(t, "process"+on, 3)
		if !wanted {
			require.Len(t, tr.spans.GetSpans(), len(attempts))
			continue
		}
		for word, verdict := range map[string]string{"nak": "retry", "ack": "ack", "term": "dead_letter"} {
			s := tr.await(t, word+on, 1)[0]
			require.Equal(t, trace.SpanKindClient, s.SpanKind)
			require.Equal(t, "settle", attr(s, "messaging.operation.type"))
			i := slices.IndexFunc(attempts, func(a tracetest.SpanStub) bool { return a.SpanContext.SpanID() == s.Parent.SpanID() })
			require.GreaterOrEqual(t, i, 0)
			require.Equal(t, verdict, attr(attempts[i], "messaging.nats.verdict"))
		}
	}
}
