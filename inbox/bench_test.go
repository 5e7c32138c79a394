package inbox_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
)

// durable is a database that forces its commits to disk, as in production, with a
// table for effects and one for an inbox written by hand.
func durable(b *testing.B) *bundle {
	b.Helper()
	server, err := pgserver.Start(b.Context(), pgserver.Options{Durable: true, CachedInit: true,
		Settings: map[string]string{"shared_buffers": "512MB", "max_wal_size": "4GB"}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, server.Stop()) })
	cfg, err := pgxpool.ParseConfig(server.URL("postgres"))
	require.NoError(b, err)
	cfg.MaxConns = 50
	pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
	require.NoError(b, err)
	b.Cleanup(pool.Close)
	require.NoError(b, migrate.Up(b.Context(), pool, migrate.Config{}))
	_, err = pool.Exec(b.Context(), `
create table node (id text not null, host text not null);
create table seen (consumer text, source text, message_id uuid, at timestamptz default clock_timestamp(), primary key (consumer, source, message_id))`)
	require.NoError(b, err)
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(b, err)
	return &bundle{pool: pool, in: in}
}

// one is a fresh message of version 7.
func one() *envelope.Delivery {
	return delivery(inbox.Message{Source: "maskin", ID: uuid.Must(uuid.NewV7()).String()}, `{"hostname":"h1"}`)
}

const insertNode = `insert into node (id, host) values ($1, $2)`

// register is the usual handler: one statement.
func register(ctx context.Context, tx pgx.Tx, m envelope.Received[serverV1]) error {
	_, err := tx.Exec(ctx, insertNode, m.Envelope.Subject, m.Data.Hostname)
	return err
}

// registerAll is the same for a batch.
func registerAll(ctx context.Context, tx pgx.Tx, all []received) error {
	ids, hosts := make([]string, len(all)), make([]string, len(all))
	for i, m := range all {
		ids[i], hosts[i] = m.Envelope.Subject, m.Data.Hostname
	}
	_, err := tx.Exec(ctx, `insert into node (id, host) select * from unnest($1::text[], $2::text[])`, ids, hosts)
	return err
}

// byHand is what a service would write without this package.
func (b *bundle) byHand(ctx context.Context, d *envelope.Delivery) error {
	data, err := provisioned.Decode(d.Envelope)
	if err != nil {
		return envelope.Permanent(err)
	}
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `insert into seen (consumer, source, message_id) values ($1, $2, $3) on conflict do nothing`,
			"plattform__servers", d.Envelope.Source.String(), d.Envelope.ID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return register(ctx, tx, envelope.Received[serverV1]{Delivery: d, Data: data})
	})
}

// deliver hands n messages to a handler, with so many in flight.
func deliver(b *testing.B, handle func(context.Context, *envelope.Delivery) error, n, inFlight int) time.Duration {
	b.Helper()
	var left atomic.Int64
	var group sync.WaitGroup
	left.Store(int64(n))
	began := time.Now()
	for range inFlight {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := handle(b.Context(), one()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

// BenchmarkHandlers measures whole handlers with 256 messages in flight, each way
// in turns, so that whatever else the machine does meets all of them. It reports
// medians of the rounds, and of the ratios within a round.
func BenchmarkHandlers(b *testing.B) {
	s := durable(b)
	guarded, err := inbox.New(s.pool, "plattform__servers", inbox.Config{TenantSetting: "app.tenant_id"})
	require.NoError(b, err)
	ways := []struct {
		name   string
		handle func(context.Context, *envelope.Delivery) error
		rates  []float64 // messages in a second, by round
	}{
		{name: "byhand", handle: s.byHand},
		{name: "single", handle: inbox.On(s.in, provisioned, register).Handle},
		{name: "batch", handle: inbox.OnBatch(s.in, provisioned, inbox.Batch{}, registerAll).Handle},
		{name: "tenant", handle: inbox.On(guarded, provisioned, register).Handle},
	}
	const inFlight, round = 256, 4000
	for left := b.N; left > 0; left -= round {
		n := min(left, round)
		for i := range ways {
			way := &ways[(left/round+i)%len(ways)] // no way is always the first
			way.rates = append(way.rates, float64(n)/deliver(b, way.handle, n, inFlight).Seconds())
		}
	}
	for _, way := range ways {
		b.ReportMetric(median(way.rates), way.name+"-msg/s")
	}
	b.ReportMetric(ratio(ways[1].rates, ways[0].rates), "single/byhand")
	b.ReportMetric(ratio(ways[2].rates, ways[1].rates), "batch/single")
	b.ReportMetric(ratio(ways[3].rates, ways[1].rates), "tenant/single")
	b.ReportMetric(0, "ns/op") // of all ways together, which says nothing
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// ratio is the median of what one way reached in a round beside another.
func ratio(of, beside []float64) float64 {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i] / beside[i]
	}
	return median(ratios)
}

// BenchmarkClaim measures a handler that does nothing, beside rows that are there
// already. Half of them lie in the partition that is in use.
func BenchmarkClaim(b *testing.B) {
	for _, rows := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			s := durable(b)
			s.grow(b, rows)
			d := deliver(b, inbox.On(s.in, provisioned, func(context.Context, pgx.Tx, envelope.Received[serverV1]) error { return nil }).Handle, b.N, 16)
			b.ReportMetric(float64(b.N)/d.Seconds(), "msg/s")
		})
	}
}

// grow stores rows whose ids tell their time: half of them now, half 60 days ago,
// handled then.
func (b *bundle) grow(t testing.TB, rows int) {
	t.Helper()
	for _, ago := range []time.Duration{0, 60 * day} {
		at := time.Now().Add(-ago)
		_, err := b.pool.Exec(t.Context(), `insert into messaging.inbox_messages (consumer, source, message_id, bucket, handled_at)
select 'plattform__servers', 'maskin',
       (lpad(to_hex($1::bigint - n / 10), 12, '0') || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid,
       ($1::bigint >> 29) % 16, $2::timestamptz - make_interval(secs => n / 1000.0)
from generate_series($3::int / 2, 1, -1) n`, at.UnixMilli(), at, rows)
		require.NoError(t, err)
	}
}

// BenchmarkEmptyPartition measures a sweep that forgets half of the rows.
func BenchmarkEmptyPartition(b *testing.B) {
	s := durable(b)
	j, err := inbox.NewJanitor(s.pool, streamAge, inbox.JanitorConfig{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	for b.Loop() {
		b.StopTimer()
		s.grow(b, 100_000)
		b.StartTimer()
		_, err := j.Sweep(b.Context())
		require.NoError(b, err)
	}
}
