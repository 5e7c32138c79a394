package outbox_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
)

// A relay reads each row about once, from the first to the last. It did not
// when a backlog came while another was walked: the floor of the second walk was
// from before the first, so that its first page passed over all rows of the
// first, longer than a lease lasts for a few million. Nor may a plan be kept that
// was made while the table was small.
func TestRelayReadsEachRowAboutOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	execute(t, b.pool, "alter table messaging.outbox_events set (autovacuum_enabled = off)")
	own, err := pgxpool.NewWithConfig(t.Context(), b.pool.Config())
	require.NoError(t, err)
	defer own.Close()

	const first, each, times = 10_000, 500, 3
	const total = 1 + first + times*each
	r := bundle{pool: own, js: b.js, out: b.out}.newRelay(t, outbox.RelayConfig{PageRows: 100})
	r.ObserveEvery(time.Hour) // which counts what waits, so it reads rows too
	var polls, published, followed atomic.Int64
	r.OnPolled(func() { polls.Add(1) })
	r.OnPublished(func(_ string, rows int) {
		// Each time it has passed all there was, there is another backlog.
		if n := published.Add(int64(rows)); followed.Load() < times && n > 1+first+(followed.Load()-1)*each {
			followed.Add(1)
			b.copyMessages(t, each)
		}
	})
	idle := func() {
		from := polls.Load()
		require.Eventually(t, func() bool { return polls.Load() > from+60 }, 20*time.Second, time.Millisecond)
	}
	b.copyMessages(t, 1)
	execute(t, b.pool, "analyze messaging.outbox_events")
	stop := run(t, r)
	idle() // every plan that is kept is made now, for a table of one row
	b.copyMessages(t, first)
	b.requireStored(t, "DV_MASKIN_EVT", total)
	idle()
	stop()
	own.Close() // which tells what its connections counted

	var read int64
	require.Eventually(t, func() bool {
		require.NoError(t, b.pool.QueryRow(t.Context(), `
select seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relid = 'messaging.outbox_events'::regclass`).Scan(&read))
		return read >= total
	}, 20*time.Second, 50*time.Millisecond)
	require.LessOrEqual(t, read, int64(total*5/4))
}

// copyMessages commits n messages in one transaction, made inside the database.
func (b bundle) copyMessages(t testing.TB, n int) {
	t.Helper()
	m, err := envelope.New(origin(t.Context()), subject.Maskin, serverCounted.New("server-1", counted{Key: "a"}))
	require.NoError(t, err)
	data, err := m.Envelope.Encode()
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `
insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select 'DV_MASKIN_EVT', c.id, $1, 'key-' || c.g % 1000, replace($2, $3, c.id::text), $4
from (select gen_random_uuid() as id, g from generate_series(1, $5::int) g) c`,
		m.Subject.String(), envelope.MarshalHeader(m.Header()), m.Envelope.ID, data, n)
	require.NoError(t, err)
}
