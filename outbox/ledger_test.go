package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// ledger is a consuming service that writes down every effect. The table has
// no unique constraint: a repeated effect must be seen, not masked.
type ledger struct {
	pool     *pgxpool.Pool
	consumer *consumer.Consumer
}

func startLedger(t *testing.T, b bundle) *ledger {
	t.Helper()
	l := &ledger{pool: dvtest.Postgres(t)}
	_, err := l.pool.Exec(t.Context(), "create table ledger (place bigint generated always as identity, key text, n int)")
	require.NoError(t, err)
	durable := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: maskinEvents, Filter: subject.EventsOf(subject.Maskin),
		MaxAckPending: 1, Start: topology.StartFirst(),
		// A broker that comes back with an earlier state may wait for an answer
		// that was given long ago.
		AckWait: 5 * time.Second,
	}
	letters, ops := topology.DeadLetters(subject.Plattform, topology.Limits{}), topology.DeadLetterOps(subject.Plattform, topology.Limits{})
	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{
		Service: subject.Plattform, Streams: []topology.Stream{maskinEvents, letters, ops}, Consumers: []topology.Consumer{durable},
	}))
	dead, err := dlq.Open(t.Context(), b.js, subject.Plattform, dlq.Config{})
	require.NoError(t, err)
	in, err := inbox.New(l.pool, "ledger", inbox.Config{})
	require.NoError(t, err)
	l.consumer, err = consumer.New(b.js, dead, consumer.Config{Consumer: durable}, inbox.On(in, serverCounted, writeDown))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- l.consumer.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return l
}

func writeDown(ctx context.Context, tx pgx.Tx, m envelope.Received[counted]) error {
	_, err := tx.Exec(ctx, "insert into ledger (key, n) values ($1, $2)", m.Data.Key, m.Data.N)
	return err
}

// require waits for all effects, and checks that each happened once and in the
// order of its key.
func (l *ledger) require(t *testing.T, totals map[string]int) {
	t.Helper()
	want := 0
	for _, n := range totals {
		want += n
	}
	require.Eventually(t, func() bool { return l.count(t) >= want }, 60*time.Second, 20*time.Millisecond, "effects are missing")
	rows, err := l.pool.Query(t.Context(), "select key, n from ledger order by place")
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c counted, err error) {
		return c, r.Scan(&c.Key, &c.N)
	})
	require.NoError(t, err)
	require.Len(t, got, want, "effects were doubled")
	requireCounted(t, got, totals)
}

func (l *ledger) count(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, l.pool.QueryRow(t.Context(), "select count(*) from ledger").Scan(&n))
	return n
}

// duplicates is how many deliveries the inbox absorbed.
func (l *ledger) duplicates() int { return int(l.consumer.Stats().Duplicates) }
