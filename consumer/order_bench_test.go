package consumer_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// BenchmarkOrder compares a consumer with an Order over 1,000 keys to the same one
// without: a handler that does nothing, and one with an effect in the inbox's
// transaction.
func BenchmarkOrder(b *testing.B) {
	for _, handler := range []string{"empty", "inbox"} {
		for _, order := range []*consumer.Order{nil, {}} {
			b.Run(fmt.Sprintf("%s/ordered=%t", handler, order != nil), func(b *testing.B) { benchmarkOrder(b, handler, order) })
		}
	}
}

func benchmarkOrder(b *testing.B, handler string, order *consumer.Order) {
	js, pool := dvtest.NATS(b).JetStream(), wide(b)
	limits := topology.Limits{MaxBytes: 4 << 30}
	declared := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, limits),
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(), MaxAckPending: 256,
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
	for n := range b.N {
		m, err := envelope.New(ctx, subject.Maskin, counted.New(fmt.Sprintf("key%03d", n%1000), numberV1{N: n}))
		require.NoError(b, err)
		data, err := m.Envelope.Encode()
		require.NoError(b, err)
		_, err = js.PublishMsgAsync(&nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
		require.NoError(b, err)
	}
	<-js.PublishAsyncComplete()
	_, err = pool.Exec(b.Context(), createEffects)
	require.NoError(b, err)
	in := newInbox(b, pool)
	run, cancel := context.WithCancel(b.Context())
	var handled atomic.Int64
	done := func() {
		if handled.Add(1) == int64(b.N) {
			cancel()
		}
	}
	route := handleCounted(done)
	if handler == "inbox" {
		route = inbox.On(in, counted, func(ctx context.Context, tx pgx.Tx, m envelope.Received[numberV1]) error {
			_, err := tx.Exec(ctx, insertEffect, m.Envelope.Subject, m.Data.N, m.Envelope.ID)
			if err == nil {
				done()
			}
			return err
		})
	}
	c, err := consumer.New(js, &graves{}, consumer.Config{
		Consumer: declared, Concurrency: 256, Store: in, Order: order, Logger: slog.New(slog.DiscardHandler),
	}, route)
	require.NoError(b, err)
	b.ReportAllocs()
	b.ResetTimer()
	require.NoError(b, c.Run(run))
}

func handleCounted(done func()) envelope.Route {
	return consumer.On(counted, func(context.Context, envelope.Received[numberV1]) error {
		done()
		return nil
	})
}

// wide is a database with a connection for each worker.
func wide(b *testing.B) *pgxpool.Pool {
	cfg := dvtest.Postgres(b).Config().Copy()
	cfg.MaxConns = 40
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	return pool
}
