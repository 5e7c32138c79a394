package outbox

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Bounds of what ReadStatus counts besides what waits, in rows of each stream. It
// costs the same with a thousand rows retained and with a hundred million.
const (
	retainedLimit  = 10_000  // retained rows that are counted; more are estimated
	heldLimit      = 100_000 // rows that are searched for those of parked keys
	discardedLimit = 100_000
)

const (
	// tableRows is how many rows the table of events has, published ones included:
	// by the counters of the running server, else by the last ANALYZE, else -1.
	tableRows = `(select coalesce(nullif(pg_stat_get_live_tuples(c.oid), 0), c.reltuples::bigint)
          from pg_class c where c.oid = '{{schema}}.outbox_events'::regclass)`

	// streamRows estimates how many of them are of stream s: all where no other
	// stream has any, else the share that ANALYZE found; -1 where it found nothing.
	// It looks at no row.
	streamRows = `(case when not exists (select from {{schema}}.outbox_state o where o.stream <> s.stream
              and (select true from {{schema}}.outbox_events e where e.stream = o.stream order by e.seq limit 1)) then ` + tableRows + `
            else coalesce((
              select round(share * greatest(` + tableRows + `, 0))::bigint
                from pg_stats st cross join unnest(st.most_common_vals::text::text[], st.most_common_freqs) v (stream, share)
               where (st.schemaname, st.tablename) = (
                       select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
                        where c.oid = '{{schema}}.outbox_events'::regclass)
                 and st.attname = 'stream' and v.stream = s.stream), -1) end)`
)

// restSQL tells what a stream's cursor passed over and what it passed. Each part
// is an index range with a limit, or a table that is small by design.
//
// A row is held as parking says: its key is parked, and it is not before the
// head. There is no index by key, so rows are searched from the first head on.
const restSQL = `
select s.stream, s.rewound_at, p.n, coalesce(clock_timestamp() - p.oldest, '0')::interval, h.n, h.seen > $2, d.n,
       case when r.n <= $1 then r.n else ` + streamRows + ` end,
       a.n, a.oldest, q.n
from {{schema}}.outbox_state s
cross join lateral (
  select count(*) as n, min(p.parked_at) as oldest, min(p.seq) as head
  from {{schema}}.outbox_parked p where p.stream = s.stream) p
cross join lateral (
  select count(*) as seen, count(*) filter (where ` + coveredByState + ` and not ` + unheld + `) as n
  from (select e.stream, e.seq, e.xid, e.ordering_key from {{schema}}.outbox_events e
         where e.stream = s.stream and e.seq >= p.head order by e.seq limit $2 + 1) e) h
cross join lateral (
  select count(*) as n from (select from {{schema}}.outbox_discarded d where d.stream = s.stream order by d.seq limit $3) d) d
cross join lateral (
  select count(*) as n from (select from {{schema}}.outbox_events e where e.stream = s.stream order by e.seq limit $1 + 1) e) r
cross join lateral (
  select count(*) as n, min(a.at) as oldest from {{schema}}.outbox_anchors a
   where a.stream = s.stream and ` + usable + `) a
cross join lateral (
  select count(*) as n from {{schema}}.outbox_rewinds q where q.stream = s.stream and q.done_at is null) q
order by s.stream`

// coveredByState tells whether the cursor has passed a row.
const coveredByState = `(pg_visible_in_snapshot(e.xid, s.base)
    or s.target is not null and e.seq <= s.position and pg_visible_in_snapshot(e.xid, s.target))`

// readRest completes the streams that readStreams read in the same transaction.
func readRest(ctx context.Context, tx pgx.Tx, schema string, s *Status) error {
	rows, err := tx.Query(ctx, strings.ReplaceAll(restSQL, "{{schema}}", schema), int64(retainedLimit), int64(heldLimit), int64(discardedLimit))
	if err != nil {
		return err
	}
	i := 0
	var stream string
	var rewound, anchored *time.Time
	defer rows.Close()
	for ; rows.Next(); i++ {
		t := &s.Streams[i] // both statements see the same rows, in the same order
		err := rows.Scan(&stream, &rewound, &t.Parked, &t.OldestParkedAge, &t.Held, &t.HeldCapped, &t.Discarded,
			&t.RetainedEstimate, &t.Anchors, &anchored, &t.RewindRequests)
		if err != nil {
			return err
		}
		if rewound != nil {
			t.RewoundAt = *rewound
		}
		if anchored != nil {
			t.OldestAnchor = *anchored
		}
		if t.RetainedEstimate >= 0 {
			t.RetainedEstimate = max(0, t.RetainedEstimate-t.Unpublished-t.Held)
		}
	}
	return rows.Err()
}
