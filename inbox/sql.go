package inbox

import (
	"strconv"
	"strings"

	"codeberg.org/dataverket/messaging/tenant"
)

// statements are those of one bucket. They name its partition, not the table as a
// whole: that saves a fifth of a claim's time in the database, and locks nothing
// but the partition (see decision 0013).
type statements struct {
	claim     string
	replay    string // a claim for an operator
	deadUnder string
	markDead  string
	begin     string // an attempt
}

func newStatements(schema string, setting tenant.Setting) (all [allBuckets]statements) {
	told := "" // the claim sets nothing
	if setting != "" {
		told = strings.ReplaceAll(tenantText, "{{setting}}", string(setting))
	}
	for bucket := range all {
		fill := strings.NewReplacer("{{schema}}", schema, "{{partition}}", partition(schema, bucket), "{{bucket}}", strconv.Itoa(bucket),
			"{{tenant}}", told).Replace
		all[bucket] = statements{
			claim: fill(claimText), replay: fill(replayText), deadUnder: fill(deadUnderText),
			markDead: fill(markDeadText), begin: fill(beginText),
		}
	}
	return all
}

// claimText inserts the row that stands for the effect. It affects no row when the
// message was handled, or is dead, or is parked and $4 does not name the claim on
// it. It waits for a copy that is being handled at this moment.
//
// The commit is made synchronous in the same statement: CASE decides what is run,
// and set_config never returns null. RETURNING would have the server send a row,
// and "do update" prepare one, for each message: a tenth of its time for a handler.
const claimText = `
insert into {{partition}} (consumer, source, message_id, bucket)
select $1, $2, $3, case {{tenant}}
  when case when current_setting('synchronous_commit') = 'off'
            then set_config('synchronous_commit', 'on', true) is null end then null
  else {{bucket}} end
 where not exists (
  select from {{schema}}.inbox_parked
   where consumer = $1 and source = $2 and message_id = $3 and letter_id = '' and claim is distinct from $4)
on conflict do nothing`

// tenantText tells the transaction its tenant, $5, in a claim. A statement of its own
// took a tenth of a handler's rate. The name of a setting needs no quotes escaped.
const tenantText = `when set_config('{{setting}}', $5, true) is null then null`

// replayText is the same for the replay of the letter $5. It also revives a row that
// is dead under that letter.
const replayText = `
insert into {{partition}} as m (consumer, source, message_id, bucket)
select $1, $2, $3, {{bucket}} where not exists (
  select from {{schema}}.inbox_parked
   where consumer = $1 and source = $2 and message_id = $3 and letter_id = $5 and claim is distinct from $4)
on conflict (consumer, source, message_id, bucket) do update
   set letter_id = null, handled_at = clock_timestamp()
 where m.letter_id = $5` + raiseCommit

// deadUnderText asks what stood in the way of a claim: null for the effect, or the
// letter that the message is dead under. The claim has locked the row, so that
// this is what it saw.
const deadUnderText = `
select letter_id from {{partition}}
 where consumer = $1 and source = $2 and message_id = $3 and bucket = {{bucket}}`

// raiseCommit makes the commit synchronous. It stands in RETURNING, because
// there it is evaluated exactly when there is something to commit.
const raiseCommit = `
returning case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end`

// markDeadText records a dead letter, unless the effect is there: a message whose
// letter was stored may still have been handled by another copy of it. With $5,
// a replay, the row of another letter stays with that letter: a replay that was
// refused for its sake must not take it away.
const markDeadText = `
insert into {{partition}} as m (consumer, source, message_id, bucket, letter_id)
values ($1, $2, $3, {{bucket}}, $4)
on conflict (consumer, source, message_id, bucket) do update
   set letter_id = excluded.letter_id, handled_at = clock_timestamp()
 where m.letter_id is not null and (m.letter_id = excluded.letter_id or not $5)` + raiseCommit

// claimAllText inserts the rows of a batch, whatever their partitions, and returns
// those that were neither there nor parked. It revives nothing, since a replay is never in a batch.
const claimAllText = `
insert into {{schema}}.inbox_messages as m (consumer, source, message_id, bucket)
select $1, k.source, k.id, k.bucket from unnest($2::text[], $3::uuid[], $4::smallint[]) as k (source, id, bucket)
 where not exists (
  select from {{schema}}.inbox_parked p
   where p.consumer = $1 and p.source = k.source and p.message_id = k.id and p.letter_id = '')
on conflict (consumer, source, message_id, bucket) do nothing
returning m.source, m.message_id,
          case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end`

// A batch claims with little patience, because one message of which a copy is being
// handled elsewhere holds up all others; the handler then has the patience it was
// given. The value in between lies in a setting of our own, which spares a round
// trip.
const (
	impatientText = `select set_config('dvmsg.lock_timeout', current_setting('lock_timeout'), true), set_config('lock_timeout', '1s', true)`
	hurriedText   = `set local lock_timeout = '10ms'` // to see whether there is anything to wait for
	patientText   = `select set_config('lock_timeout', current_setting('dvmsg.lock_timeout'), true)`
)

// newerText remembers versions that are higher than the one it has of their key,
// and returns their keys. It locks the others too, so that whoever tells a version
// of the same key meanwhile waits. The order in which it locks is that of the keys.
const newerText = `
insert into {{schema}}.inbox_versions as v (consumer, key, version)
select $1, k.key, k.version from unnest($2::text[], $3::bigint[]) with ordinality as k (key, version, place)
order by k.place
on conflict (consumer, key) do update set version = excluded.version, last_at = clock_timestamp()
 where v.version < excluded.version
returning v.key`

// beginText counts the start of an attempt. $4 says that an operator replays the
// message: then a row that says "handled" is not asked for, the claim decides. $5
// is its letter, and $6 the claim on a parked message: without one it must not be
// parked, with one the claim must still hold.
const beginText = `
with done as (
  select from {{partition}}
   where consumer = $1 and source = $2 and message_id = $3 and bucket = {{bucket}} and letter_id is null and not $4
  union all
  select where ($6 <> '') <> exists (
    select from {{schema}}.inbox_parked
     where consumer = $1 and source = $2 and message_id = $3 and letter_id = $5 and ($6 = '' or claim = $6))
), started as (
  insert into {{schema}}.inbox_attempts as a (consumer, source, message_id, starts, ended)
  select $1, $2, $3, 1, 0 where not exists (select from done)
  on conflict (consumer, source, message_id) do update set starts = a.starts + 1, last_at = clock_timestamp()` + raiseCommit + `, starts, starts - 1 - ended as open
)
select coalesce(max(starts), 0), coalesce(max(open), 0), not exists (select from started) from started`

// attemptsSQL are the statements about handler starts that ask nothing of a partition.
type attemptsSQL struct{ open, end, undo, forget string }

func newAttemptsSQL(schema string) attemptsSQL {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{{schema}}", schema) }
	return attemptsSQL{
		open: in(`
select coalesce(max(starts - ended), 0) from {{schema}}.inbox_attempts
 where consumer = $1 and source = $2 and message_id = $3`),

		// Without a row it was the first start, of which nothing was written.
		end: in(`
insert into {{schema}}.inbox_attempts as a (consumer, source, message_id, starts, ended)
values ($1, $2, $3, 1, 1)
on conflict (consumer, source, message_id) do update set ended = a.starts, last_at = clock_timestamp()` + raiseCommit),

		undo: in(`
update {{schema}}.inbox_attempts set starts = starts - 1
 where consumer = $1 and source = $2 and message_id = $3 and starts > ended`),

		forget: in(`
delete from {{schema}}.inbox_attempts where consumer = $1 and source = $2 and message_id = $3`),
	}
}
