package inbox

import "strings"

// parkingSQL are the statements about parked messages. $1 is always the consumer;
// where one message is meant, $2 to $4 are its source, id and letter, and $5 is
// its claim.
type parkingSQL struct {
	park, parkFenced, survey, surveyHeads, claim, claimHeads, extend, giveBack, unpark, hold, isParked, parkBehind, keys, reclaim string
}

func newParkingSQL(schema string) parkingSQL {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{{schema}}", schema) }
	return parkingSQL{
		// Somebody else may have parked a copy meanwhile: that one stays.
		park: in(parkText + parkedText + `, clock_timestamp() + $16::bigint * interval '1 microsecond'
on conflict do nothing` + raiseCommit),
		// A statement of its own: a role without an ordered consumer need not be
		// allowed to look at leases.
		parkFenced: in(parkText + parkedText + `, clock_timestamp() + $18::bigint * interval '1 microsecond'
 where ` + unfencedText + `
on conflict do nothing` + raiseCommit),

		// The look for the key locks nothing. A head that is being handled in this
		// moment is seen or not; either way the message is behind it in order.
		parkBehind: in(parkText + parkedText + `, clock_timestamp()
 where exists (select from {{schema}}.inbox_parked where consumer = $1 and durable = $5 and ordering_key = $6)
   and ` + unfencedText + `
on conflict do nothing` + raiseCommit),

		// At most $3 rows are counted.
		survey: in(`
select count(*), ` + untilText + ` from ` + someText + ` as parked`),
		surveyHeads: in(headsText + `
select (select count(*) from ` + someText + ` as parked), ` + untilText + ` from heads as h where not ` + waitsText),

		claim: in(claimParkedText("with due", "")),
		claimHeads: in(claimParkedText(headsText+", due", `
   and exists (select from heads as h
                where (h.source, h.message_id, h.letter_id) = (p.source, p.message_id, p.letter_id)
                  and not `+waitsText+`)`)),

		extend: in(`
update {{schema}}.inbox_parked as p set due_at = clock_timestamp() + $6::bigint * interval '1 microsecond'
  from (select consumer, source, message_id, letter_id from {{schema}}.inbox_parked
         where consumer = $1 and source = $2 and message_id = $3 and letter_id = $4 and claim = $5
           for update skip locked) as mine
 where (p.consumer, p.source, p.message_id, p.letter_id) = (mine.consumer, mine.source, mine.message_id, mine.letter_id)`),

		giveBack: in(`
update {{schema}}.inbox_parked
   set claim = '', due_at = clock_timestamp() + $6::bigint * interval '1 microsecond', attempts = $7, reason = $8,
       released_by = null, release_reason = null
 where consumer = $1 and source = $2 and message_id = $3 and letter_id = $4 and claim = $5`),

		unpark: in(`
delete from {{schema}}.inbox_parked
 where consumer = $1 and source = $2 and message_id = $3 and letter_id = $4 and claim = $5`),

		// In the transaction of the effect, instead of unpark, for a replay: its row
		// stays until its letter is resolved, or nobody would resolve that after a
		// crash in between. Locked, the claim cannot be lost before the commit.
		hold: in(`
select from {{schema}}.inbox_parked
 where consumer = $1 and source = $2 and message_id = $3 and letter_id = $4 and claim = $5 for update`),

		isParked: in(`
select exists (select from {{schema}}.inbox_parked where consumer = $1 and source = $2 and message_id = $3 and letter_id = $4)`),

		reclaim: in(`
update {{schema}}.inbox_parked as p set claim = '', due_at = clock_timestamp()
  from (select consumer, source, message_id, letter_id from {{schema}}.inbox_parked
         where consumer = $1 and durable = $2 and claim <> '' for update skip locked) as left_behind
 where (p.consumer, p.source, p.message_id, p.letter_id) = (left_behind.consumer, left_behind.source, left_behind.message_id, left_behind.letter_id)`),

		keys: in(`
select distinct ordering_key from {{schema}}.inbox_parked where consumer = $1 and durable = $2`),
	}
}

const parkText = `
insert into {{schema}}.inbox_parked (consumer, source, message_id, letter_id, durable, ordering_key, stream, subject,
  stream_created, sequence, stored_at, reason, headers, data, attempts, due_at)`

const parkedText = `
select $1, $2, $3::uuid, $4, $5, $6, $7, $8, $9::timestamptz, $10::bigint, $11::timestamptz, $12, $13::bytea[], $14::bytea, $15::integer`

// unfencedText lets an ordered consumer park nothing once it was overtaken. Here a
// look without a lock would not be enough: a successor reads the parked keys once,
// when it has the lease, and must not read them before this has committed. It would
// take the parked message for handled, and handle its followers first.
const unfencedText = `exists (select from {{schema}}.inbox_leases where name = $16 and term = $17::bigint for share)`

// untilText is how long it is until the first is due, in microseconds; null if
// there is none.
const untilText = `(extract(epoch from min(due_at) - clock_timestamp()) * 1000000)::bigint`

const someText = `(select due_at from {{schema}}.inbox_parked where consumer = $1 and durable = $2 order by due_at limit $3)`

// headsText walks from key to key and takes the first message of each, so that it
// costs a look into the index per key, however many wait behind.
const headsText = `
with recursive heads as (
  (select stream, ordering_key, source, message_id, letter_id, due_at from {{schema}}.inbox_parked
    where consumer = $1 and durable = $2
    order by ordering_key, stream_created, sequence limit 1)
  union all
  select next.* from heads, lateral (
    select stream, ordering_key, source, message_id, letter_id, due_at from {{schema}}.inbox_parked
     where consumer = $1 and durable = $2 and ordering_key > heads.ordering_key
     order by ordering_key, stream_created, sequence limit 1) as next
)`

// waitsText tells a head h whose key waits for an operator: it could only wait in
// memory. The message that became the letter is none of those.
const waitsText = `exists (
  select from {{schema}}.inbox_held_keys as k
   where k.lease = h.stream || '/' || $2 and k.ordering_key = h.ordering_key
     and (k.source, k.message_id) <> (h.source, h.message_id))`

// claimParkedText hands at most $3 messages that are due to the claim $4, for $5
// microseconds. A row that is locked is being handled: its claim may have run
// out, its transaction has not. The conditions hold for the row as it is when it
// has been locked, so two processes never claim one message.
func claimParkedText(with, condition string) string {
	return with + ` as (
  select consumer, source, message_id, letter_id from {{schema}}.inbox_parked as p
   where consumer = $1 and durable = $2 and due_at <= statement_timestamp()` + condition + `
   order by due_at limit $3 for update skip locked
)
update {{schema}}.inbox_parked as p
   set claim = $4, due_at = clock_timestamp() + $5::bigint * interval '1 microsecond'
  from due
 where (p.consumer, p.source, p.message_id, p.letter_id) = (due.consumer, due.source, due.message_id, due.letter_id)
returning p.source, p.message_id::text, p.letter_id, p.durable, p.ordering_key, p.stream, p.subject,
          p.stream_created, p.sequence, p.stored_at, p.reason, p.headers, p.data, p.attempts,
          coalesce(p.released_by, ''), coalesce(p.release_reason, '')`
}
