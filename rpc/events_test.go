package rpc_test

import (
	"context"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// An event is no hidden call (requirement K3): what is stored and delivered names
// nobody to answer to, and a handler is given no place to find one.
func TestEventsCarryNoReplySubject(t *testing.T) {
	t.Parallel()
	conn, pool := dvtest.NATS(t), dvtest.Postgres(t)
	js := conn.JetStream()
	events := topology.Events(subject.Maskin, topology.Limits{MaxBytes: 64 << 20})
	_, err := js.CreateStream(t.Context(), events.Config())
	require.NoError(t, err)
	durable, err := js.CreateConsumer(t.Context(), events.Name, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)

	provisioned := envelope.MustEvent[getReply](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1})
	out, err := outbox.New(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}, outbox.Config{})
	require.NoError(t, err)
	relay, err := outbox.NewRelay(out, pool, js, outbox.RelayConfig{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
	require.NoError(t, pgx.BeginFunc(asking(t, patience), pool, func(tx pgx.Tx) error {
		return out.Enqueue(asking(t, patience), tx, provisioned.New("srv-1", getReply{Hostname: "h"}))
	}))

	m, err := durable.Next(jetstream.FetchMaxWait(soon))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(m.Reply(), "$JS.ACK."), "the server's own subject for the acknowledgement: %s", m.Reply())
	requireNoReply(t, m.Headers())
	stored, err := js.Stream(t.Context(), events.Name)
	require.NoError(t, err)
	raw, err := stored.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	requireNoReply(t, raw.Header)

	for _, handed := range []reflect.Type{reflect.TypeFor[envelope.Delivery](), reflect.TypeFor[envelope.Envelope](), reflect.TypeFor[envelope.Message]()} {
		for i := range handed.NumField() {
			require.NotContains(t, strings.ToLower(handed.Field(i).Name), "reply", handed.String())
		}
	}
}

// requireNoReply checks that no header names a subject to answer to.
func requireNoReply(t *testing.T, h nats.Header) {
	t.Helper()
	for name, values := range h {
		require.NotContains(t, strings.ToLower(name), "reply")
		for _, v := range values {
			require.NotContains(t, v, "_INBOX", name)
		}
	}
}
