package outbox_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// retained makes n rows of the event stream and, one in four, of the command
// stream, and an old anchor and a cursor that cover them, as a relay that
// published them leaves them. The relay must not run.
func (b bundle) retained(t testing.TB, n int) {
	t.Helper()
	b.exec(t, `
insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select case when g % 4 = 0 then 'DV_NETT_CMD' else 'DV_MASKIN_EVT' end, gen_random_uuid(), 'dv.maskin.evt.server.counted', 'key-' || g % 1000, repeat('h', 300), convert_to(repeat('x', 500), 'UTF8')
from generate_series(1, $1) g`, n)
	b.exec(t, `
update messaging.outbox_state
   set base = pg_current_snapshot(), floor = (select last_value from messaging.outbox_events_seq_seq),
       next_floor = (select last_value from messaging.outbox_events_seq_seq)`)
	b.exec(t, `delete from messaging.outbox_anchors`)
	b.exec(t, `
insert into messaging.outbox_anchors (stream, at, stream_created, acked_sequence, acked_id, base, floor, next_floor)
select stream, now() - interval '2 days', stream_created, acked_sequence, acked_id, base, floor, next_floor
  from messaging.outbox_state where acked_sequence > 0`)
}

// A service that deletes millions of rows must not notice: every statement takes
// a bounded number of rows.
func TestManyRowsAreDeletedInBoundedBatches(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueueEach(t, map[string]int{}, 1)
	stop()
	b.retained(t, 100_000)
	b.exec(t, `
create table batch (n bigint);
create function note() returns trigger language plpgsql as $$ begin insert into batch select count(*) from gone; return null; end $$;
create trigger note after delete on messaging.outbox_events referencing old table as gone for each statement execute function note()`)
	began := time.Now()
	r := b.newRelay(t, outbox.RelayConfig{ProbeInterval: 10 * time.Millisecond})
	r.Retain(24*time.Hour, 3*time.Millisecond, 1000)
	run(t, r)
	require.Eventually(t, func() bool {
		return b.number(t, "select count(*) from messaging.outbox_events where stream = 'DV_MASKIN_EVT'") == 0
	}, 60*time.Second, 20*time.Millisecond)
	t.Logf("75,001 rows deleted in %v", time.Since(began))
	require.Equal(t, 25_000, b.number(t, "select count(*) from messaging.outbox_events"), "rows of a stream without an anchor are gone")
	require.Equal(t, 75_001, b.number(t, "select sum(n) from batch"))
	require.LessOrEqual(t, b.number(t, "select max(n) from batch"), 1000)
}

// The statements cost the same whatever the planner knows: nothing after a bulk
// load, everything after ANALYZE, or that a generic plan is wanted.
func TestRetentionReadsNoMoreThanItsWindowWithAndWithoutStatistics(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{Holder: "h", LeaseTTL: time.Minute})
	b.enqueueEach(t, map[string]int{}, 1)
	stop()
	b.exec(t, "alter table messaging.outbox_events set (autovacuum_enabled = false)")
	b.retained(t, 100_000)
	b.exec(t, `insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
		select 'DV_MASKIN_EVT', 'key-' || g, 90000, gen_random_uuid(), 'x', 'x' from generate_series(1, 900) g`)
	b.exec(t, "insert into messaging.outbox_discarded (stream, id, seq, ordering_key, subject, cause, discarded_by, reason) select stream, id, seq, ordering_key, subject, 'x', 'x', 'x' from messaging.outbox_events where seq % 10 = 0")
	b.exec(t, "update messaging.outbox_lease set holder = 'h', term = 1; delete from messaging.outbox_alive; insert into messaging.outbox_alive values (1)")
	conn, err := b.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	sql := outbox.Statements("messaging")
	// Prepared in a text, as the drivers do it, so that the plan is made with the
	// values at first.
	_, err = conn.Exec(t.Context(), fmt.Sprintf(`
prepare win (text, timestamptz, bigint, int) as %s;
prepare evs (text, timestamptz, bigint, int) as %s;
prepare del (text, bigint, text, timestamptz, bigint, bigint[]) as %s`, sql["window"].SQL, sql["events"].SQL, sql["drop"].SQL), pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	var at time.Time
	require.NoError(t, conn.QueryRow(t.Context(), "select at from messaging.outbox_anchors").Scan(&at))
	anchor := "'" + at.Format(time.RFC3339Nano) + "'"
	rows, err := conn.Query(t.Context(), "select seq::text from messaging.outbox_events where stream = 'DV_MASKIN_EVT' and seq > 40000 order by seq limit 1000")
	require.NoError(t, err)
	seqs, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)

	for _, knowledge := range []string{"set plan_cache_mode = force_custom_plan", "analyze messaging.outbox_events", "set plan_cache_mode = force_generic_plan"} {
		_, err = conn.Exec(t.Context(), knowledge)
		require.NoError(t, err)
		for _, call := range []string{
			outbox.PinPlan + "; execute win('DV_MASKIN_EVT', " + anchor + ", 40000, 1000)",
			outbox.PinPlan + "; execute evs('DV_MASKIN_EVT', " + anchor + ", 40000, 1000)",
			"execute del('h', 1, 'DV_MASKIN_EVT', " + anchor + ", 1, '{" + strings.Join(seqs, ",") + "}')",
		} {
			plan := explain(t, conn, call)
			require.Contains(t, plan, "outbox_events_pkey", knowledge)
			require.NotContains(t, plan, "Seq Scan on outbox_events", knowledge)
			require.NotContains(t, plan, "outbox_events_stream_xid", knowledge)
			require.NotContains(t, plan, "Seq Scan on outbox_parked", knowledge)
			require.NotRegexp(t, `on outbox_events.*rows=\d{5}`, plan, knowledge)
			require.NotRegexp(t, `on outbox_discarded.*rows=\d{4}`, plan, knowledge)
			require.NotContains(t, plan, "Rows Removed by Index Recheck", knowledge)
			require.NotRegexp(t, `Rows Removed by Filter: \d{4}`, plan, knowledge)
		}
	}
}

// explain runs the last of some statements as EXPLAIN ANALYZE and undoes it.
func explain(t testing.TB, conn *pgxpool.Conn, statements string) string {
	t.Helper()
	before, call, found := strings.Cut(statements, "; ")
	if !found {
		before, call = "select 1", statements
	}
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), before)
	require.NoError(t, err)
	rows, err := tx.Query(t.Context(), "explain (analyze, costs off, timing off, summary off) "+call, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	return strings.Join(lines, "\n")
}

// A rewind and a delete that meet happen one after the other: whoever is second
// finds the anchor that it needs gone.
func TestRewindAndRetentionExcludeEachOther(t *testing.T) {
	t.Parallel()
	sql := outbox.Statements("messaging")
	for name, c := range map[string]struct {
		deleteFirst bool
		rows        int // that are left
		cursor      int // its message
	}{
		"rows are deleted, then the cursor goes back": {true, 2, 4},
		"the cursor goes back, then rows are deleted": {false, 4, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			stop := b.relay(t, outbox.RelayConfig{Holder: "h"})
			b.enqueueEach(t, map[string]int{}, 4)
			stop()
			b.exec(t, `delete from messaging.outbox_anchors; update messaging.outbox_lease set term = 1; update messaging.outbox_alive set term = 1`)
			// Their message's number tells the anchors and the cursor apart.
			b.exec(t, `
insert into messaging.outbox_anchors (stream, at, stream_created, acked_sequence, acked_id, base, floor, next_floor)
select stream, now() - age, stream_created, sequence, acked_id, base, floor, next_floor
  from messaging.outbox_state, (values (interval '3 days', 1), ('2 days', 2)) v (age, sequence) where acked_sequence > 0`)
			var older, newer time.Time
			require.NoError(t, b.pool.QueryRow(t.Context(), "select min(at), max(at) from messaging.outbox_anchors").Scan(&older, &newer))
			drop := func(q querier) error {
				_, err := q.Exec(t.Context(), sql["drop"].SQL, "h", int64(1), events, newer, int64(2), []int64{1, 2})
				return err
			}
			rewind := func(q querier) error {
				_, err := q.Exec(t.Context(), sql["rewindTo"].SQL, "h", int64(1), events, older, true)
				return err
			}
			first, second := rewind, drop
			if c.deleteFirst {
				first, second = drop, rewind
			}
			tx, err := b.pool.Begin(t.Context())
			require.NoError(t, err)
			require.NoError(t, first(tx))
			ended := make(chan error, 1)
			go func() { ended <- second(b.pool) }()
			require.Eventually(t, func() bool {
				return b.number(t, "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 1
			}, 20*time.Second, time.Millisecond)
			require.NoError(t, tx.Commit(t.Context()))
			require.NoError(t, <-ended)
			require.Len(t, b.seqs(t), c.rows)
			require.Equal(t, c.cursor, b.number(t, "select acked_sequence from messaging.outbox_state where acked_sequence > 0"))
		})
	}
}

type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}
