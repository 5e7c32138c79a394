package dvtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
)

// One of several messages of a type, by its resource and by its data.
func ExampleRequireEnqueued() {
	_ = func(t *testing.T) {
		pool := dvtest.Postgres(t)
		// … the code under test …
		got := dvtest.RequireEnqueued(t, pool, ServerProvisioned,
			dvtest.ForResource("server-1"),
			dvtest.Where("it has a hostname", func(d ServerProvisionedV1) bool { return d.Hostname != "" }))
		require.Equal(t, "tenant-1", got.Envelope.TenantID)
	}
}

// Through its own transaction a test sees what is not committed, and needs no
// cleaning up: it rolls back.
func ExampleRequireEnqueued_transaction() {
	_ = func(t *testing.T, out *outbox.Outbox) {
		tx, err := dvtest.Postgres(t).Begin(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback(context.WithoutCancel(t.Context()))) }()
		ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1"))
		require.NoError(t, out.Enqueue(ctx, tx, ServerProvisioned.New("server-1", ServerProvisionedV1{})))
		dvtest.RequireEnqueued(t, tx, ServerProvisioned)
	}
}

// What was rolled back was not enqueued.
func ExampleRequireNotEnqueued() {
	_ = func(t *testing.T, out *outbox.Outbox) {
		pool, refused := dvtest.Postgres(t), errors.New("refused")
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1"))
			require.NoError(t, out.Enqueue(ctx, tx, ServerProvisioned.New("server-1", ServerProvisionedV1{})))
			return refused
		})
		require.ErrorIs(t, err, refused)
		dvtest.RequireNotEnqueued(t, pool, ServerProvisioned)
	}
}

// Headers of a message that a program of its own published or received.
func ExampleRequireHeaders() {
	_ = func(t *testing.T, m *nats.Msg) {
		dvtest.RequireHeaders(t, m.Header, map[string]string{
			envelope.HeaderType:        ServerProvisioned.Name(),
			envelope.HeaderTenantID:    "tenant-1",
			envelope.HeaderCausationID: "", // absent: the message began at the edge
		})
	}
}

// All headers that belong to an envelope.
func ExampleRequireHeadersOf() {
	_ = func(t *testing.T, m *nats.Msg) {
		e, err := envelope.Decode(m.Data)
		require.NoError(t, err)
		dvtest.RequireHeadersOf(t, m.Header, e)
	}
}

// The effect is committed, once, within a second.
func ExampleRequireHandledOnce() {
	_ = func(t *testing.T) {
		pool := newPool(t)
		Serve(t, pool, dvtest.NATS(t).JetStream())
		// … the code under test …
		sent := dvtest.RequireEnqueued(t, pool, ServerProvisioned)
		dvtest.RequireHandledOnce(t, pool, "node_registry", sent.Envelope.Source, sent.Envelope.ID, dvtest.Within(time.Second))
	}
}

// The dead letter of one workflow, and why it is one.
func ExampleRequireDeadLettered() {
	_ = func(t *testing.T, correlationID string) {
		conn := dvtest.NATS(t)
		// … the code under test …
		letter := dvtest.RequireDeadLettered(t, conn, subject.Plattform, dlq.Filter{CorrelationID: correlationID})
		require.Equal(t, envelope.ClassPoison, letter.Class)
	}
}

// A handler's verdict on a message that nothing heals, and on a command of sentral.
func ExampleDeliver() {
	_ = func(t *testing.T) {
		err := dvtest.Deliver(t, RegisterNode(t, newPool(t)), ServerProvisioned.New("server-1", ServerProvisionedV1{}))
		require.True(t, envelope.IsPermanent(err))

		route := consumer.On(ProvisionServer, func(_ context.Context, m envelope.Received[ServerProvisionedV1]) error {
			if m.Envelope.Source != subject.Sentral {
				return envelope.Permanent(errors.New("only sentral may ask for servers"))
			}
			return nil
		})
		require.NoError(t, dvtest.Deliver(t, route, ProvisionServer.New("server-1", ServerProvisionedV1{}), dvtest.From(subject.Sentral)))
	}
}

// A repeat has no second effect.
func ExampleDeliverTwice() {
	_ = func(t *testing.T) {
		pool := newPool(t)
		dvtest.DeliverTwice(t, RegisterNode(t, pool), ServerProvisioned.New("server-1", ServerProvisionedV1{Hostname: "db1"}))
		require.Equal(t, 1, count(t, pool, "node"))
	}
}
