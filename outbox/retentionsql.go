package outbox

// retainSQL finds and deletes what is published and too old.
type retainSQL struct{ limits, foretell, window, windowOfEvents, drop string }

const (
	// covered tells whether an anchor says that a row was published: it is
	// visible in the base, or behind the position of the walk under way. A row that
	// became visible later than the anchor is neither.
	covered = `(pg_visible_in_snapshot(e.xid, a.base)
    or a.target is not null and e.seq <= a.position and pg_visible_in_snapshot(e.xid, a.target))`

	// unheld tells whether no parked key holds a row. A scalar subquery is always
	// one probe of the index per row; an anti join may read all parked keys.
	unheld = `coalesce((select false from {{schema}}.outbox_parked p
      where p.stream = e.stream and p.ordering_key = e.ordering_key and p.seq <= e.seq), true)`

	// lastRelease is when a parked key was last released.
	lastRelease = `coalesce(s.released_at, '-infinity')`
)

func newRetainSQL(in func(string) string) retainSQL {
	return retainSQL{
		// Of each stream the newest anchor beyond the horizon. One without a
		// message proves nothing, nor does one of another stream of the name. One
		// from before a parked key was released covers rows that were published
		// after it.
		limits: in(`
select s.stream, s.stream_created, s.acked_sequence, s.acked_id, s.deleted_through, a.at, a.acked_sequence, a.acked_id,
       exists (select from {{schema}}.outbox_anchors o where o.stream = s.stream and o.at < a.at)
from {{schema}}.outbox_state s
cross join lateral (
  select a.at, a.acked_sequence, a.acked_id from {{schema}}.outbox_anchors a
   where a.stream = s.stream and a.stream_created = s.stream_created
     and a.acked_sequence > 0 and a.at <= clock_timestamp() - $1::interval and a.at > ` + lastRelease + `
   order by a.at desc limit 1) a
where s.recreated is null`),

		// A statement of its own, and before the first row goes: it needs the state
		// row, which drop must not hold while others wait for it.
		foretell: in(fence + `
update {{schema}}.outbox_state s set deleted_through = greatest(s.deleted_through, $4)
  from lease where s.stream = $3
returning set_config('synchronous_commit', 'off', true)`),

		window:         in(windowSQL(``, ``)),
		windowOfEvents: in(windowSQL(archivedColumns, archivedPayload)),

		// The anchors are locked in the order of their time, as a rewind locks
		// them, which therefore happens before or after this. "array(select …)"
		// hides the number of rows from the planner: with the true one, and
		// without statistics, it reads the whole stream instead of probing the
		// key. Losing this commit in a crash costs nothing but doing it again, so
		// it does not wait for the disk.
		drop: in(fence + `, past as (
  select a.at, a.at = $4 as held from {{schema}}.outbox_anchors a, {{schema}}.outbox_state s, lease
   where a.stream = $3 and s.stream = $3 and (a.at <= $4 or a.acked_sequence < $5) and $4 > ` + lastRelease + `
   order by a.at for update of a
), older as (
  delete from {{schema}}.outbox_anchors a using past p where a.stream = $3 and a.at = p.at and not p.held
), gone as (
  delete from {{schema}}.outbox_events e
   where e.stream = $3 and e.seq = any(array(select unnest($6::bigint[])))
     and exists (select from past where held) and ` + unheld + `
  returning e.seq
), forgotten as (
  delete from {{schema}}.outbox_discarded d where d.stream = $3 and d.seq = any(array(select seq from gone))
)
select exists (select from past where held), (select count(*) from gone),
       set_config('synchronous_commit', 'off', true)`),
	}
}

// windowSQL reads rows in the order of the primary key, as many as are asked
// for, whatever becomes of them: rows that must stay do not make it longer. No row
// that the anchor covers lies above its next_floor, see docs/decisions/0003, or
// above its position. "offset 0" has what becomes of a row decided once, however
// often it is used.
func windowSQL(columns, payload string) string {
	return `
select e.seq, e.doomed` + payload + `
from {{schema}}.outbox_anchors a
cross join lateral (
  select e.*, ` + covered + ` and ` + unheld + ` as doomed
  from (
    select e.stream, e.seq, e.xid, e.ordering_key` + columns + ` from {{schema}}.outbox_events e
     where e.stream = a.stream and e.seq > $3 and e.seq <= greatest(a.next_floor, a.position)
     order by e.seq limit $4) e
  offset 0
) e
where a.stream = $1 and a.at = $2
order by e.seq`
}
