package consumer_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const canary = "canary-9f3c77aa"

// canaryMessage carries the canary in its data, in a header of a stranger and in
// what is no trace context, after change has had its way.
func canaryMessage(t *testing.T, resource string, change func(*nats.Msg)) *nats.Msg {
	t.Helper()
	m := draft(t, provisioned.New(resource, serverV1{Hostname: canary}))
	m.Header.Set("X-Foreign", canary)
	m.Header.Set("tracestate", canary)
	if change != nil {
		change(m)
	}
	return m
}

// everyVerdict returns messages for every verdict; handlers tell them by resource.
func everyVerdict(t *testing.T) []*nats.Msg {
	t.Helper()
	data := func(text string) func(*nats.Msg) { return func(m *nats.Msg) { m.Data = []byte(text) } }
	var all []*nats.Msg
	for _, resource := range []string{"fine", "retry", "later", "park", "panic", "goexit", "timeout", "permanent", "exhausted"} {
		all = append(all, canaryMessage(t, resource, nil))
	}
	misfit := canaryMessage(t, "misfit", func(m *nats.Msg) {
		m.Data = []byte(strings.Replace(string(m.Data), `"`+canary+`"`, `["`+canary+`"]`, 1))
	})
	all = append(all, misfit,
		canaryMessage(t, "a", data(canary)), canaryMessage(t, "b", data(`{"id":"`+canary+`"`)), canaryMessage(t, "c", data(`{"`+canary+`":1}`)),
		canaryMessage(t, "tenant", func(m *nats.Msg) { m.Header.Set("tenant-id", "other") }),
		canaryMessage(t, "trace", func(m *nats.Msg) { m.Header.Set("traceparent", "00-"+canary) }))
	again := *all[0]
	again.Header = nats.Header{}
	for name, values := range all[0].Header {
		again.Header[name] = values
	}
	again.Header.Del("Nats-Msg-Id") // behind the duplicate window
	return append(all, &again)
}

// mixed returns the verdict that a resource stands for.
func mixed(ctx context.Context, m received) error {
	first := m.Attempt == 1
	switch m.Envelope.Subject {
	case "retry":
		if first {
			return errBroken
		}
	case "later":
		if first {
			return envelope.RetryAfter(time.Millisecond, errBroken)
		}
	case "park":
		if first {
			return envelope.RetryAfter(200*time.Millisecond, errBroken)
		}
	case "panic":
		if first {
			panic("boom")
		}
	case "goexit":
		if first {
			runtime.Goexit()
		}
	case "timeout":
		if first {
			<-ctx.Done()
			return ctx.Err()
		}
	case "permanent":
		return envelope.Permanent(errBroken)
	case "exhausted":
		return errBroken
	}
	return nil
}

// A payload, and what strangers put into headers, reach no log, no span and no label
// of a metric, whatever becomes of the message: on its way out, in the consumer, as a
// dead letter, and in its replay.
//
// A row of docs/DELIVERY.md.
func TestPayloadsReachNoTelemetry(t *testing.T) {
	t.Parallel()
	p, tr, m, log := setupPlatform(t, topology.Limits{MaxBytes: 16 << 20}), newTracing(), newMeter(), &book{}
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p.parkInRelay(t, tr, m, logger)

	queue, err := dlq.Open(t.Context(), p.js, subject.Plattform, dlq.Config{Logger: logger})
	require.NoError(t, err)
	in, err := inbox.New(p.pool, "plattform__servers", inbox.Config{Logger: logger})
	require.NoError(t, err)
	var calm atomic.Bool
	route := inbox.On(in, provisioned, func(ctx context.Context, _ pgx.Tx, r received) error {
		if calm.Load() {
			return nil
		}
		return mixed(ctx, r)
	})
	c, err := consumer.New(p.js, queue, p.bundle.config(tr.config, m.config, withStore(in), func(c *consumer.Config) {
		c.Logger, c.ParkAfter, c.MassFailure, c.MaxAttempts, c.HandlerTimeout = logger, 50*time.Millisecond, -1, 3, time.Second
	}), route)
	require.NoError(t, err)
	c.LookEvery(10 * time.Millisecond)
	start(t, c)
	for _, msg := range everyVerdict(t) {
		p.send(t, msg)
	}
	_, err = p.js.Publish(t.Context(), "dv.plattform.replay.plattform__from_maskin", []byte(canary))
	require.NoError(t, err)
	const letters = 7 // permanent, exhausted, misfit, three unreadable ones, tenant
	require.Eventually(t, func() bool {
		s := c.Stats()
		return s.DeadLetters == letters && s.Handled == 8 && s.Duplicates == 1 && s.Rejected == 1 && s.Parked == 1
	}, soon, tick, "not every verdict was reached")

	calm.Store(true)
	for l, err := range queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		if l.Class == envelope.ClassPoison {
			_, err := queue.Replay(t.Context(), l.ID, dlq.Request{By: "operator:ola", Reason: "a test"})
			require.NoError(t, err)
		}
	}
	require.Eventually(t, func() bool { return c.Stats().Handled == 9 }, soon, tick)
	p.requireNoCanary(t, tr, m, log)
}

// parkInRelay sends a message on its way that no stream takes, and one that is fine.
func (p *platform) parkInRelay(t *testing.T, tr tracing, m meter, logger *slog.Logger) {
	t.Helper()
	out, err := outbox.New(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{p.declared.Stream}}, outbox.Config{TracerProvider: tr})
	require.NoError(t, err)
	relay, err := outbox.NewRelay(out, p.pool, p.js, outbox.RelayConfig{
		Logger: logger, TracerProvider: tr, MeterProvider: m, PollInterval: 10 * time.Millisecond,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	narrow := p.declared.Stream.Config()
	narrow.MaxMsgSize = 4096
	_, err = p.js.UpdateStream(t.Context(), narrow)
	require.NoError(t, err)
	origin := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:ola", "tenant-1"))
	require.NoError(t, pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
		return out.Enqueue(origin, tx, provisioned.New("large", serverV1{Hostname: canary + strings.Repeat("x", 8000)}))
	}))
	require.Eventually(t, func() bool { return rowsOf(t, p.pool, "outbox_parked") == 1 }, soon, tick)
	cancel()
	require.NoError(t, <-done)
}

func (p *platform) requireNoCanary(t *testing.T, tr tracing, m meter, log *book) {
	t.Helper()
	require.NotEmpty(t, log.lines("consumer: dead letter"))
	require.NotEmpty(t, log.lines("its key is parked"))
	for _, line := range log.lines("sequence") {
		if !strings.Contains(line, "malformed replay") { // which had no header at all
			require.Contains(t, line, "correlation_id")
		}
	}
	require.Empty(t, log.lines(canary))
	spans, err := json.Marshal(tr.spans.GetSpans())
	require.NoError(t, err)
	require.Contains(t, string(spans), "dead_letter")
	require.NotContains(t, string(spans), canary)
	points := m.points(t, func(name string, set attribute.Set) {
		for _, label := range set.ToSlice() {
			require.NotContains(t, label.Value.String(), canary, name)
		}
	})
	require.NotEmpty(t, points)
}
