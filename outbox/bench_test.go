package outbox_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

// BenchmarkEnqueue is one transaction with one message.
func BenchmarkEnqueue(b *testing.B) {
	pool, out := dvtest.Postgres(b), newOutbox(b)
	pad := strings.Repeat("x", 250)
	b.ReportAllocs()
	for b.Loop() {
		err := pgx.BeginFunc(b.Context(), pool, func(tx pgx.Tx) error {
			return out.Enqueue(origin(b.Context()), tx, serverCounted.New("server-1", counted{Key: "a", Pad: pad}))
		})
		require.NoError(b, err)
	}
}

// BenchmarkMake is what Enqueue does before the database: the making of a message.
func BenchmarkMake(b *testing.B) {
	out, ctx := newOutbox(b), origin(b.Context())
	pad := strings.Repeat("x", 250)
	b.ReportAllocs()
	for b.Loop() {
		err := out.Enqueue(ctx, nowhere{}, serverCounted.New("server-1", counted{Key: "a", Pad: pad}, envelope.Project("project-1")))
		require.NoError(b, err)
	}
}

// nowhere is a transaction that takes everything and keeps nothing.
type nowhere struct{ pgx.Tx }

func (nowhere) Conn() *pgx.Conn { return nil }

func (nowhere) QueryRow(context.Context, string, ...any) pgx.Row { return nowhere{} }

func (nowhere) Scan(...any) error { return nil }

// BenchmarkRelay drains a backlog of b.N envelopes of about 700 bytes over
// 1,000 keys into a file stream.
func BenchmarkRelay(b *testing.B) {
	t := bundle{pool: dvtest.Postgres(b), js: dvtest.NATS(b).JetStream(), out: newOutbox(b)}
	createStreams(b, t.js)
	fillBacklog(b, t, b.N)
	b.ResetTimer()
	stop := t.relay(b, outbox.RelayConfig{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	requireStored(b, t.js, "DV_MASKIN_EVT", uint64(b.N))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.StopTimer()
	stop()
}

// fillBacklog stores one real message and copies it inside the database.
func fillBacklog(b *testing.B, t bundle, n int) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), t.pool, func(tx pgx.Tx) error {
		return t.out.Enqueue(origin(b.Context()), tx, serverCounted.New("server-1", counted{Key: "a", Pad: strings.Repeat("x", 250)},
			envelope.Project("project-1")))
	})
	require.NoError(b, err)
	_, err = t.pool.Exec(b.Context(), `
insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select e.stream, c.id, e.subject, 'key-' || c.g % 1000,
       replace(e.headers, e.id::text, c.id::text), e.envelope
from messaging.outbox_events e, (select gen_random_uuid() as id, g from generate_series(2, $1::int) g) c`, n)
	require.NoError(b, err)
}
