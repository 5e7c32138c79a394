package outbox

// foreignSQL is about rows and cursors of another cluster, see cluster.go.
type foreignSQL struct {
	foreign, foreignSeq, foreignUnsure                                       string // what there is
	foreignFence, foreignForget, foreignPatience, foreignLock, foreignSetSeq string // parts of the beginning
	foreignBegin, foreignTell, foreignEnd, foreignRewrite, foreignDone       string // the steps
}

func newForeignSQL(in func(string) string) foreignSQL {
	return foreignSQL{
		foreign: in(`
with here as materialized (select system_identifier as id from pg_control_system())
select s.stream,
       case when f.base is not null and f.cluster = here.id then 'begun'
            when f.base is not null or s.system_identifier <> here.id then 'moved'
            else 'lost' end
from here cross join {{schema}}.outbox_state s left join {{schema}}.outbox_foreign f using (stream)
where f.base is not null or s.system_identifier <> here.id
   or f.stream is null and (
     select true from {{schema}}.outbox_events e
      where ` + ofStream + ` and e.xid >= pg_snapshot_xmax(pg_current_snapshot()) limit 1)`),

		// The sequence, the highest number that it must have given out, and whether
		// somebody was about to set it.
		foreignSeq: in(`
select ` + lastSeq + `, greatest(max(s.floor), max(s.next_floor), max(s.ceiling), max(e.seq), 0),
       coalesce(bool_or(s.system_identifier = 0), false)
from {{schema}}.outbox_state s
left join lateral (select e.seq from {{schema}}.outbox_events e where e.stream = s.stream order by e.seq desc limit 1) e on true`),

		// No cluster has the identifier 0. A sequence that was set stays set when the
		// transaction fails that was to remember why.
		foreignUnsure: in(fence + `
update {{schema}}.outbox_state s set system_identifier = 0
  from lease where s.stream = any($3)
` + durable),

		foreignFence: in(fence + ` select from lease`),

		// Of which rows without a cursor are published is not known: of none, then.
		foreignForget: in(`
update {{schema}}.outbox_state
   set base = '1:1:', floor = 0, next_floor = 0, target = null, ceiling = null, position = null,
       acked_sequence = 0, acked_id = null, tail_after = 0
 where stream = any($1)`),
		foreignPatience: `select set_config('lock_timeout', $1, true)`,
		foreignLock:     in(`lock table {{schema}}.outbox_events in share mode`),
		foreignSetSeq:   in(`select setval('{{schema}}.outbox_events_seq_seq', $1)`),

		foreignBegin:   in(foreignBegin),
		foreignTell:    in(foreignTell),
		foreignEnd:     in(foreignEnd),
		foreignRewrite: in(foreignRewrite),

		// Keys that are to be published again had to wait, and the cursor passed over
		// what came of them.
		foreignDone: in(fence + `, passed as (
  update {{schema}}.outbox_state s set released_at = clock_timestamp()
    from lease where s.stream = $3 and exists (
      select from {{schema}}.outbox_parked p where p.stream = s.stream and p.released_at is not null)
)
delete from {{schema}}.outbox_foreign f using lease where f.stream = $3 and f.base is null
` + durable),
	}
}

// foreignBegin remembers the foreign cursors, and takes the first base here.
//
// low is below every row that may not be published: such rows are above the
// floor, or of a transaction that the base calls open. The ids of another cluster
// are compared with snapshots of that cluster here, which is plain arithmetic.
// Where a take-over was under way when the dump was made, the rows it had told
// apart have ids of that other cluster: all rows above low count as not published
// then. Some of them lie in the stream from before the cursor, as do rows whose
// numbers were given out again ($3), so all of the stream is asked for those.
//
// $2 is a floor of the snapshot by the rule of docs/decisions/0003; high is read
// after it.
const foreignBegin = `
with asked as (
  update {{schema}}.outbox_state s set tail_after = 0
   where s.stream = any($1) and ($3 > 0 or exists (
     select from {{schema}}.outbox_foreign b where b.stream = s.stream and b.base is not null))
)
insert into {{schema}}.outbox_foreign as f (stream, cluster, base, target, position, next_floor, again_through, low, visited, high, fresh, floor)
select s.stream, (select system_identifier from pg_control_system()), s.base,
       case when b.base is null then s.target end, case when b.base is null then s.position end,
       case when b.base is null then s.next_floor else 0 end, $3, l.low, l.low, ` + lastSeq + `, pg_current_snapshot(), $2
from {{schema}}.outbox_state s left join {{schema}}.outbox_foreign b using (stream)
cross join lateral (
  select case when $3 > 0 then 0
              when b.base is not null then b.low
              else least(s.floor, $2, (
                select min(late.seq) - 1 from pg_snapshot_xip(s.base) as x cross join lateral (
                  select e.seq from {{schema}}.outbox_events e where ` + late + ` order by e.xid, e.seq limit 1) late)) end as low) l
where s.stream = any($1)
on conflict (stream) do update
   set cluster = excluded.cluster, base = excluded.base, target = excluded.target, position = excluded.position,
       next_floor = excluded.next_floor, again_through = excluded.again_through, low = excluded.low,
       visited = excluded.visited, high = excluded.high, fresh = excluded.fresh, floor = excluded.floor,
       written_xid = null, written_seq = null
` + durable

// foreignTell tells a batch of rows apart.
//
// A row that is not published gets an id of today, also if it has one, and is
// new to the fresh base. One that is published and looks new gets the id 1. Rows
// of transactions that are open now are not seen here; they are of this cluster,
// and the fresh base does not see them either.
const foreignTell = fence + `, page as materialized (
  select e.seq, e.xid, f.fresh,
         e.seq > f.again_through
           and (e.seq <= f.next_floor and pg_visible_in_snapshot(e.xid, f.base)
                or f.target is not null and e.seq <= f.position and pg_visible_in_snapshot(e.xid, f.target)) as published
    from lease cross join {{schema}}.outbox_foreign f
   cross join lateral (
     select e.seq, e.xid from {{schema}}.outbox_events e
      where e.stream = f.stream and e.seq > f.visited and e.seq <= f.high order by e.seq limit $4) e
   where f.stream = $3 and f.base is not null
), told as (
  update {{schema}}.outbox_events e
     set xid = case when p.published then '1'::xid8 else pg_current_xact_id() end
    from page p
   where e.stream = $3 and e.seq = p.seq and not (p.published and pg_visible_in_snapshot(p.xid, p.fresh))
)
update {{schema}}.outbox_foreign f
   set visited = case when (select count(*) from page) < $4 then f.high else (select max(seq) from page) end,
       floor = least(f.floor, (select min(seq) - 1 from page where not published))
  from lease where f.stream = $3 and f.base is not null
returning (select count(*) from page) < $4, (select count(*) from page where not published)::int`

// foreignEnd puts the fresh base in force. The number in $4 was read before, so
// that it may be the floor of the next one.
const foreignEnd = fence + `, f as (
  select * from {{schema}}.outbox_foreign where stream = $3 and base is not null and visited >= high
), gone as (
  delete from {{schema}}.outbox_anchors a using lease, f where a.stream = f.stream
), kept as (
  update {{schema}}.outbox_foreign o
     set base = null, target = null, position = null, written_xid = pg_snapshot_xmax(f.fresh), written_seq = 0
    from lease, f where o.stream = f.stream
)
update {{schema}}.outbox_state s
   set base = f.fresh, floor = f.floor, next_floor = greatest(f.floor, $4), target = null, ceiling = null, position = null,
       system_identifier = f.cluster, updated_at = clock_timestamp()
  from lease, f where s.stream = f.stream
` + durable

// foreignRewrite gives the id 1 to a batch of published rows that look new: by
// their ids those that began after the fresh base, and those it calls open.
const foreignRewrite = fence + `, newer as materialized (
  select e.seq, e.xid
    from lease cross join {{schema}}.outbox_foreign s
   cross join lateral (
     select e.seq, e.xid from {{schema}}.outbox_events e
      where ` + ofStream + ` and (e.xid, e.seq) > (s.written_xid, s.written_seq) and e.seq <= s.low
      order by e.xid, e.seq limit $4) e
   where s.stream = $3 and s.base is null
), older as materialized (
  select late.seq
    from lease cross join {{schema}}.outbox_foreign s cross join lateral pg_snapshot_xip(s.fresh) as x
   cross join lateral (
     select e.seq from {{schema}}.outbox_events e
      where ` + late + ` and e.seq <= s.low order by e.xid, e.seq limit $4) late
   where s.stream = $3 and s.base is null
), done as (
  update {{schema}}.outbox_events e set xid = '1'
    from (select seq from newer union all select seq from older) p
   where e.stream = $3 and e.seq = p.seq
)
update {{schema}}.outbox_foreign f
   set written_xid = coalesce(n.xid, f.written_xid), written_seq = coalesce(n.seq, f.written_seq)
  from lease left join lateral (select xid, seq from newer order by xid desc, seq desc limit 1) n on true
 where f.stream = $3 and f.base is null
returning not exists (select from newer) and not exists (select from older),
          (select count(*) from newer)::int + (select count(*) from older)::int`
