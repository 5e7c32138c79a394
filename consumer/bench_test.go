package consumer_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// BenchmarkConsume measures fetch, decode, checks, routing, a handler that does
// nothing, and ack, over an in-process connection.
func BenchmarkConsume(b *testing.B) {
	js := dvtest.NATS(b).JetStream()
	limits := topology.Limits{MaxBytes: 4 << 30}
	declared := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, limits),
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	for _, s := range []topology.Stream{declared.Stream, topology.DeadLetterOps(subject.Plattform, limits)} {
		_, err := js.CreateStream(b.Context(), s.Config())
		require.NoError(b, err)
	}
	_, err := js.CreateConsumer(b.Context(), declared.Stream.Name, declared.Config())
	require.NoError(b, err)
	_, err = js.CreateConsumer(b.Context(), declared.ReplayStream(), declared.ReplayConfig())
	require.NoError(b, err)
	ctx := envelope.WithOrigin(b.Context(), envelope.NewOrigin("user:ola", "tenant-1"))
	for range b.N {
		m, err := envelope.New(ctx, subject.Maskin, provisioned.New("srv", serverV1{Hostname: "h"}))
		require.NoError(b, err)
		data, err := m.Envelope.Encode()
		require.NoError(b, err)
		_, err = js.PublishMsgAsync(&nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
		require.NoError(b, err)
	}
	<-js.PublishAsyncComplete()

	run, cancel := context.WithCancel(b.Context())
	var handled atomic.Int64
	c, err := consumer.New(js, &graves{}, consumer.Config{Consumer: declared, Logger: slog.New(slog.DiscardHandler)},
		handle(func(context.Context, received) error {
			if handled.Add(1) == int64(b.N) {
				cancel()
			}
			return nil
		}))
	require.NoError(b, err)
	b.ReportAllocs()
	b.ResetTimer()
	require.NoError(b, c.Run(run))
	b.ReportMetric(float64(c.Stats().Requests)/float64(b.N), "requests/op")
}
