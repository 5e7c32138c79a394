package outbox

import "strings"

// statements are the relay's SQL with the quoted schema in place.
type statements struct {
	leaseSQL
	termSQL
	readSQL
	moveSQL
	healSQL
	recallSQL
	foreignSQL
	parkSQL
	retainSQL
	observeSQL
}

type (
	leaseSQL struct{ acquire, renew, release string }                            // who leads
	termSQL  struct{ alive, check, declare, adopt string }                       // once a term
	readSQL  struct{ glance, poll, pollForeign, page, mark string }              // what is new
	moveSQL  struct{ commitBase, drawID, beginWalk, commitPage, endWalk string } // the cursor, forward

	// what the broker lost: anchors and the cursor, back
	healSQL struct{ lanes, readState, readAnchors, thin, settle, await, rewindTo, rewindAll string }

	// what a stream holds behind its cursor
	recallSQL struct{ oldest, present, pass string }

	// what is passed over, and what operators ask for
	parkSQL struct{ held, discarded, park, top, heldPage, unpark, request, requestDone string }
)

func newStatements(schema string) statements {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{{schema}}", schema) }
	return statements{newLeaseSQL(in), newTermSQL(in), newReadSQL(in), newMoveSQL(in), newHealSQL(in), newRecallSQL(in), newForeignSQL(in), newParkSQL(in), newRetainSQL(in), newObserveSQL(in)}
}

// Fragments that several statements share.
const (
	// lastSeq is the highest number the sequence gave out. It is read from the
	// sequence itself, not from a snapshot, and it is durable with the commit
	// it is written in: nextval logs ahead before it hands a number out.
	lastSeq = `(select case when is_called then last_value else 0 end from {{schema}}.outbox_events_seq_seq)`

	// fence admits the holder of the term, and makes a take-over wait for this
	// write, or this write for the take-over. A renewal does not wait: it changes no
	// key, and who shares a lock never queues up, so that with many busy streams the
	// lease would be free for nobody. It does not admit a term that began
	// before a crash of the database: a snapshot it holds may take new rows for
	// seen.
	fence = `with lease as (
  select from {{schema}}.outbox_lease where holder = $1 and term = $2
     and exists (select from {{schema}}.outbox_alive a where a.term = $2) for key share)`

	// durable makes the commit of a cursor synchronous whatever the role's
	// default is: only a durably committed snapshot may be a base.
	durable = `returning case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end`

	// newest remembers the newest stored message: where to look whether the
	// stream still holds what it acknowledged.
	newest = `acked_id = case when $5 >= s.acked_sequence then $6 else s.acked_id end,
       acked_sequence = greatest(s.acked_sequence, $5)`

	// behind remembers where in the stream to look for what the cursor has not
	// passed.
	behind = `tail_after = greatest(s.tail_after, $8)`

	// keep copies the cursor as it is before the move, when $7 says so. Both
	// parts of the statement see the same rows.
	keep = `, kept as (
  insert into {{schema}}.outbox_anchors (stream, stream_created, acked_sequence, acked_id, tail_after, base, floor, next_floor, target, ceiling, position)
  select s.stream, s.stream_created, s.acked_sequence, s.acked_id, s.tail_after, s.base, s.floor, s.next_floor, s.target, s.ceiling, s.position
    from {{schema}}.outbox_state s, lease where s.stream = $3 and $7::boolean
  on conflict do nothing)`

	// pinPlan leaves the planner the indexes that have the order asked for, and no
	// compiler: what they cost does not depend on statistics. As every plan is the
	// same then, it is made once for a connection, not for an execution.
	pinPlan = `select set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true),
       set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)`

	// pinLoop makes a batch look up its rows one by one, by the primary key.
	pinLoop = `select set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`

	rowColumns = `e.seq, e.id, e.subject, e.ordering_key, e.headers, e.envelope`

	// ofStream takes the rows of a stream by the index (stream, xid, seq), which
	// is in the collation "C" for that purpose: a condition in the collation of
	// the column cannot use it, and one in "C" cannot use the primary key. The
	// choice between both is the one mistake that pinPlan leaves to the planner.
	ofStream = `e.stream = s.stream collate "C"`

	// newer and late are the rows that the base does not see: those of transactions
	// that began after it, and those of one, x, that was open then. A condition
	// "between x and x" reads a range; with "=" the planner is free to join.
	newer = ofStream + ` and e.xid >= pg_snapshot_xmax(s.base)`
	late  = ofStream + ` and e.xid between x and x`

	// waiting tells that there is a row that the base does not see, or a walk.
	waiting = `coalesce(s.target is not null
       or (select true from {{schema}}.outbox_events e where ` + newer + ` order by e.xid, e.seq limit 1)
       or (select true from pg_snapshot_xip(s.base) as x cross join lateral (
             select from {{schema}}.outbox_events e where ` + late + ` order by e.xid, e.seq limit 1) late limit 1), false)`

	// excepted tells that there are rows which the cursor passes over.
	excepted = `(exists (select from {{schema}}.outbox_parked p where p.stream = s.stream)
         or exists (select from {{schema}}.outbox_discarded p where p.stream = s.stream))`

	// requested tells that an operator asks for something.
	requested = `(exists (select from {{schema}}.outbox_parked p where p.stream = s.stream and p.released_at is not null)
         or exists (select from {{schema}}.outbox_rewinds r where r.stream = s.stream and r.done_at is null))`
)

func newLeaseSQL(in func(string) string) leaseSQL {
	return leaseSQL{
		// The lock is one that the moves under way exclude, see fence. Who waited for
		// them looks again whether the lease is free.
		acquire: in(`
with free as (
  select from {{schema}}.outbox_lease as l where l.expires_at < clock_timestamp() or l.holder = $1 for update
), taken as (
  update {{schema}}.outbox_lease l
     set holder = $1, term = l.term + 1, expires_at = clock_timestamp() + $2::interval
    from free
  returning l.term
), first as (
  insert into {{schema}}.outbox_lease as l (singleton, holder, term, expires_at)
  select true, $1, 1, clock_timestamp() + $2::interval
   where not exists (select from {{schema}}.outbox_lease)
  on conflict do nothing
  returning l.term
)
select term from taken union all select term from first`),
		renew: in(`
update {{schema}}.outbox_lease set expires_at = clock_timestamp() + $3::interval
 where holder = $1 and term = $2`),
		release: in(`
update {{schema}}.outbox_lease set expires_at = clock_timestamp()
 where holder = $1 and term = $2
returning setval('{{schema}}.outbox_asleep_until', 0)`), // nobody is there to be woken
	}
}

func newTermSQL(in func(string) string) termSQL {
	return termSQL{
		// Every term declares itself alive once, before its first poll, and while it
		// holds the lease: a process that slept until another one leads would end that
		// one's term.
		alive: in(`
with lease as (
  select from {{schema}}.outbox_lease where holder = $1 and term = $2 for key share
), before as (
  delete from {{schema}}.outbox_alive a using lease where a.term <> $2
)
insert into {{schema}}.outbox_alive (term) select $2 from lease on conflict do nothing`),

		// Proves, before anything is published, that the cursors can be moved,
		// and mends the floors after a sequence was set back (as TRUNCATE …
		// RESTART IDENTITY does); anchors from before are dropped, for going back
		// to their floors would hide rows. It returns the sequence's cache: numbers handed
		// out in blocks would not follow the order of the transaction ids.
		check: in(fence + `, mended as (
  update {{schema}}.outbox_state s
     set floor = case when ` + lastSeq + ` < greatest(s.floor, s.next_floor) then 0 else s.floor end,
         next_floor = case when ` + lastSeq + ` < greatest(s.floor, s.next_floor) then 0 else s.next_floor end
    from lease
), void as (
  delete from {{schema}}.outbox_anchors a using lease, {{schema}}.outbox_state s
   where a.stream = s.stream and ` + lastSeq + ` < greatest(s.floor, s.next_floor, a.floor, a.next_floor)
), lockable as (
  select from {{schema}}.outbox_anchors where false for key share
), proof as (
  insert into {{schema}}.outbox_anchors (stream, acked_sequence, base, floor, next_floor)
  select s.stream, s.acked_sequence, s.base, s.floor, s.next_floor from {{schema}}.outbox_state s, lockable where false
)
select q.seqcache
  from lease, pg_sequence q where q.seqrelid = '{{schema}}.outbox_events_seq_seq'::regclass`),

		// A cursor starts with the empty base, never with the current snapshot:
		// rows may be there already.
		declare: in(`
insert into {{schema}}.outbox_state (stream, system_identifier)
select unnest($1::text[]), (select system_identifier from pg_control_system())
on conflict (stream) do nothing`),

		adopt: in(adoptSQL),
	}
}

func newReadSQL(in func(string) string) readSQL {
	return readSQL{
		// The streams that have something to do. Nothing pins its plan, for an idle
		// relay is to send no more than this: each branch wants one row, and the
		// plan is made anew each time, so that it is made for the table as it is.
		glance: in(`
select s.stream
from {{schema}}.outbox_state s
where s.stream = any($1) and (` + requested + ` or ` + waiting + `)`),

		// The base is read inside the statement that reads the rows, and the
		// snapshot it returns is the one the rows were read with. Each branch
		// walks an index from a known place, and both end at a page.
		poll: in(`
select s.stream, s.target is not null, ` + excepted + `, ` + requested + `,
       pg_current_snapshot()::text, ` + lastSeq + `, ` + rowColumns + `
from {{schema}}.outbox_state s
left join lateral (
  (select ` + rowColumns + `
     from {{schema}}.outbox_events e
    where s.target is null and ` + newer + `
    order by e.xid, e.seq limit $2)
  union all
  (select late.*
     from pg_snapshot_xip(s.base) as x
    cross join lateral (
      select ` + rowColumns + `
        from {{schema}}.outbox_events e
       where s.target is null and ` + late + `
       order by e.xid, e.seq limit $2) late)
  limit $2
) e on true
where s.stream = any($1)`),

		// The same while rows with ids of another cluster are about: they lie up to
		// low and would look new. So new rows are found by their number, which is
		// above the floor, and what needs the rest has to wait: a cursor that went
		// back behind it, and what operators ask for.
		pollForeign: in(`
select s.stream, s.target is not null, ` + excepted + `, false,
       pg_current_snapshot()::text, ` + lastSeq + `, ` + rowColumns + `
from {{schema}}.outbox_state s join {{schema}}.outbox_foreign f using (stream)
left join lateral (
  (select ` + rowColumns + `
     from {{schema}}.outbox_events e
    where s.target is null and e.stream = s.stream and e.seq > s.floor and e.xid >= pg_snapshot_xmax(s.base)
    order by e.seq limit $2)
  union all
  (select late.*
     from pg_snapshot_xip(s.base) as x
    cross join lateral (
      select ` + rowColumns + `
        from {{schema}}.outbox_events e
       where s.target is null and ` + late + ` and e.seq > f.low
       order by e.xid, e.seq limit $2) late)
  limit $2
) e on true
where s.stream = any($1) and s.floor >= f.low`),

		// For how long from now the relay sleeps, 0 for awake. Only the holder of the
		// term says so: writers that notify in vain are slow. The setting makes this
		// statement's commit lazy: a hint is not worth a flush.
		mark: in(`
select set_config('synchronous_commit', 'off', true),
       setval('{{schema}}.outbox_asleep_until',
              case when $3 > interval '0' then extract(epoch from clock_timestamp() + $3)::bigint else 0 end)
  from {{schema}}.outbox_lease where holder = $1 and term = $2`),

		// A page of the walk from base to target. Rows of transactions that
		// began after the base have seq > floor, rows of the target have
		// seq <= ceiling; late rows of older transactions are found by xid.
		page: in(`
select ` + rowColumns + `
from {{schema}}.outbox_state s
cross join lateral (
  (select ` + rowColumns + `
     from {{schema}}.outbox_events e
    where e.stream = s.stream and e.seq > greatest(s.position, s.floor, $3) and e.seq <= s.ceiling
      and e.xid >= pg_snapshot_xmax(s.base) and pg_visible_in_snapshot(e.xid, s.target)
    order by e.seq limit $2)
  union all
  (select late.*
     from pg_snapshot_xip(s.base) as x
    cross join lateral (
      select ` + rowColumns + `
        from {{schema}}.outbox_events e
       where ` + late + ` and e.seq > greatest(s.position, $3, (select f.low from {{schema}}.outbox_foreign f where f.stream = s.stream))
         and pg_visible_in_snapshot(x, s.target)
       order by e.xid, e.seq limit $2) late)
) e
where s.stream = $1 and s.target is not null
order by e.seq limit $2`),
	}
}

func newMoveSQL(in func(string) string) moveSQL {
	return moveSQL{
		// Every number that becomes a floor is read before the transaction that
		// stores it draws its id, and the base is taken after that has ended; see
		// docs/decisions/0003. Here it is what the poll read.
		commitBase: in(fence + keep + `
update {{schema}}.outbox_state s
   set base = $4::pg_snapshot, floor = s.next_floor, next_floor = greatest(s.next_floor, $9),
       ` + newest + `, ` + behind + `, updated_at = clock_timestamp()
  from lease where s.stream = $3 and s.target is null
` + durable),

		// A snapshot counts as new every id above the highest that has ended, which
		// may have been drawn, and its numbers too, by a transaction that is open
		// since long. After this, what a snapshot counts as new drew both later.
		drawID: `select pg_current_xact_id()`,

		// The target becomes a base at the end, and next_floor its floor: the number
		// that the poll before read, for an id was drawn and given up since. The one
		// of the last move would be too low: the page of a walk that follows this one
		// would pass over all rows of this one.
		//
		// Floors above that number are from before somebody set the sequence back, and
		// would hide rows. The walk does not begin then; the term ends, and the next one
		// mends them (check).
		beginWalk: in(fence + `
update {{schema}}.outbox_state s
   set target = pg_current_snapshot(), position = 0, ceiling = ` + lastSeq + `,
       next_floor = greatest(s.next_floor, $4), updated_at = clock_timestamp()
  from lease where s.stream = $3 and s.target is null and $4 >= greatest(s.floor, s.next_floor)
` + durable),
		commitPage: in(fence + keep + `
update {{schema}}.outbox_state s
   set position = $4, ` + newest + `, ` + behind + `, updated_at = clock_timestamp()
  from lease where s.stream = $3 and s.target is not null
` + durable),
		endWalk: in(fence + `
update {{schema}}.outbox_state s
   set base = s.target, floor = s.next_floor, next_floor = greatest(s.next_floor, s.ceiling),
       target = null, position = null, ceiling = null,
       tail_after = greatest(s.tail_after, $4), updated_at = clock_timestamp()
  from lease where s.stream = $3 and s.target is not null
` + durable),
	}
}

// newHealSQL is about anchors. Going back is fenced like going forward.
func newHealSQL(in func(string) string) healSQL {
	return healSQL{
		lanes: in(`
select s.stream, s.stream_created, s.tail_after, s.acked_sequence, s.acked_id, a.acked_sequence, a.acked_id,
       exists (select from {{schema}}.outbox_foreign f where f.stream = s.stream)
from {{schema}}.outbox_state s
left join lateral (
  select a.acked_sequence, a.acked_id from {{schema}}.outbox_anchors a
   where a.stream = s.stream order by a.at desc limit 1) a on true`),
		readState: in(`
select stream_created, recreated, released_at, tail_after, acked_sequence, acked_id from {{schema}}.outbox_state where stream = $1`),
		readAnchors: in(`
select a.at, a.tail_after, a.acked_sequence, a.acked_id
from {{schema}}.outbox_anchors a join {{schema}}.outbox_state s using (stream)
where a.stream = $1 and a.stream_created is not distinct from s.stream_created
order by a.acked_sequence, a.at`),

		// The first of each minute, hour and day stays, so what stays once stays
		// until retention has deleted its rows. What is younger than a minute is
		// kept as it came.
		thin: in(fence + `
delete from {{schema}}.outbox_anchors a
 using lease, (
   select b.at, row_number() over (partition by b.bucket order by b.at) as n
     from (select at, case when at > now() - interval '1 minute' then at
                           when at > now() - interval '1 hour' then date_trunc('minute', at)
                           when at > now() - interval '2 days' then date_trunc('hour', at)
                           else date_trunc('day', at) end as bucket
             from {{schema}}.outbox_anchors where stream = $3) b) c
 where a.stream = $3 and a.at = c.at and c.n > 1`),

		settle: in(fence + `
update {{schema}}.outbox_state s set stream_created = $4, recreated = null
  from lease where s.stream = $3
` + durable),
		await: in(fence + `
update {{schema}}.outbox_state s set recreated = $4
  from lease where s.stream = $3
` + durable),

		// The row becomes what it was: any state that was once committed is a valid
		// one to go on from. Anchors after it are of the lost timeline. Where an
		// operator wants repeats ($5 is false), what the stream holds from before does
		// not count. The anchor is locked so that retention does not delete its rows
		// meanwhile; if it has, the anchor is gone and nothing happens.
		rewindTo: in(fence + `, back as (
  select a.* from {{schema}}.outbox_anchors a, lease where a.stream = $3 and a.at = $4 for key share of a
), gone as (
  delete from {{schema}}.outbox_anchors a using back b
   where a.stream = b.stream and (a.acked_sequence, a.at) > (b.acked_sequence, b.at))
update {{schema}}.outbox_state s
   set base = a.base, floor = a.floor, next_floor = a.next_floor,
       target = a.target, ceiling = a.ceiling, position = a.position,
       acked_sequence = a.acked_sequence, acked_id = a.acked_id,
       tail_after = case when $5 then a.tail_after else greatest(s.tail_after, s.acked_sequence) end,
       rewinds = s.rewinds + 1, rewound_at = clock_timestamp(), updated_at = clock_timestamp()
  from back a where s.stream = a.stream
` + durable),
		rewindAll: in(fence + `, gone as (
  delete from {{schema}}.outbox_anchors a using lease where a.stream = $3)
update {{schema}}.outbox_state s
   set base = '1:1:', floor = 0, next_floor = 0, target = null, ceiling = null, position = null,
       acked_sequence = 0, acked_id = null, tail_after = case when $4 then 0 else greatest(s.tail_after, s.acked_sequence) end,
       released_at = null,
       rewinds = s.rewinds + 1, rewound_at = clock_timestamp(), updated_at = clock_timestamp()
  from lease where s.stream = $3
` + durable),
	}
}

// newRecallSQL is about what a stream holds behind its cursor.
func newRecallSQL(in func(string) string) recallSQL {
	return recallSQL{
		oldest: in(`
select (select created_at from {{schema}}.outbox_events where stream = $1 order by seq limit 1)`),

		// There is no index by id: this reads the table. A row that retention may
		// have deleted counts as there.
		present: in(`
select array_agg(e.id is not null or i.sequence <= s.deleted_through order by i.n)
from {{schema}}.outbox_state s
cross join unnest($2::uuid[], $3::bigint[]) with ordinality i (id, sequence, n)
left join (select distinct id from {{schema}}.outbox_events where stream = $1 and id = any($2::uuid[])) e using (id)
where s.stream = $1`),
		pass: in(fence + `
update {{schema}}.outbox_state s
   set tail_after = greatest(s.tail_after, $4), ` + newest + `, lost_timeline = s.lost_timeline + $7
  from lease where s.stream = $3
` + durable),
	}
}

// newParkSQL is about keys and rows that the cursor passes over.
func newParkSQL(in func(string) string) parkSQL {
	return parkSQL{
		held: in(`
select ordering_key, seq, released_at is not null, starts_with(cause, '` + rewindCause + `')
  from {{schema}}.outbox_parked where stream = $1 order by seq`),
		discarded: in(`
select seq, id from {{schema}}.outbox_discarded where stream = $1`),

		// A key that is parked already has a new head: an earlier row, or one that
		// a release came to.
		park: in(fence + `
insert into {{schema}}.outbox_parked (stream, ordering_key, seq, id, subject, cause)
select $3, $4, $5, $6, $7, $8 from lease
on conflict (stream, ordering_key) do update
   set seq = excluded.seq, id = excluded.id, subject = excluded.subject, cause = excluded.cause,
       parked_at = clock_timestamp(), released_at = null, released_by = null, reason = null
` + durable),

		// No row of the stream is above it.
		top: in(`
select ` + lastSeq + ` from {{schema}}.outbox_state where stream = $1`),

		// What the cursor has passed: all that the base sees, and of the target
		// what the walk has come to.
		heldPage: in(`
select ` + rowColumns + `
from {{schema}}.outbox_state s join {{schema}}.outbox_events e using (stream)
where s.stream = $1 and e.stream = $1 and e.ordering_key = $2 and e.seq > $3 and e.seq <= $4
  and (pg_visible_in_snapshot(e.xid, s.base)
       or s.target is not null and e.seq <= s.position and pg_visible_in_snapshot(e.xid, s.target))
order by e.seq limit $5`),

		// Going back to an anchor from before would not bring these rows again. If
		// they were published before, and the cursor passed none over since ($7), it
		// need not: the anchors from then say where they lie in the stream.
		unpark: in(fence + `, gone as (
  delete from {{schema}}.outbox_parked p using lease where p.stream = $3 and p.ordering_key = $4 returning p.cause)
update {{schema}}.outbox_state s
   set ` + newest + `, updated_at = clock_timestamp(),
       released_at = case when not $7 and exists (select from gone where starts_with(cause, '` + rewindCause + `'))
                          then s.released_at else clock_timestamp() end
  from lease where s.stream = $3
` + durable),

		request: in(`
select requested_at, anchor_at, requested_by from {{schema}}.outbox_rewinds
 where stream = $1 and done_at is null order by requested_at limit 1`),
		requestDone: in(fence + `
update {{schema}}.outbox_rewinds r set done_at = clock_timestamp()
  from lease where r.stream = $3 and r.requested_at = $4
` + durable),
	}
}

// adoptSQL gives a cursor to every stream that has rows and none yet. It costs
// one index probe per distinct stream, however many rows there are.
const adoptSQL = `
with recursive streams (stream) as (
  (select stream from {{schema}}.outbox_events order by stream limit 1)
  union all
  select (select e.stream from {{schema}}.outbox_events e where e.stream > s.stream order by e.stream limit 1)
  from streams s where s.stream is not null
)
insert into {{schema}}.outbox_state (stream, system_identifier)
select s.stream, (select system_identifier from pg_control_system())
from streams s where s.stream is not null
on conflict (stream) do nothing
returning stream`
