package inbox

import "strings"

// claimSQL inserts the row that stands for the effect. It returns no row when
// the message was handled, or is dead and $4 does not name its letter.
//
// "do update … where" and not "do nothing": only the former can revive a dead
// row, and both wait for a copy that is being handled at this moment. With $4
// null the comparison is null, so an ordinary delivery revives nothing.
//
// The commit is made synchronous in the same round trip.
func claimSQL(schema string) string {
	return strings.ReplaceAll(`
insert into {{schema}}.inbox_messages as m (consumer, source, message_id)
values ($1, $2, $3)
on conflict (consumer, source, message_id) do update
   set letter_id = null, handled_at = clock_timestamp()
 where m.letter_id = $4`+raiseCommit, "{{schema}}", schema)
}

// deadUnderSQL asks what stood in the way of a claim: null for the effect, or the
// letter that the message is dead under. The claim has locked the row, so that
// this is what it saw.
func deadUnderSQL(schema string) string {
	return strings.ReplaceAll(`
select letter_id from {{schema}}.inbox_messages
 where consumer = $1 and source = $2 and message_id = $3`, "{{schema}}", schema)
}

// raiseCommit makes the commit synchronous. It stands in RETURNING, because
// there it is evaluated exactly when there is something to commit.
const raiseCommit = `
returning case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end`

// markDeadSQL records a dead letter, unless the effect is there: a message whose
// letter was stored may still have been handled by another copy of it. With $5,
// a replay, the row of another letter stays with that letter: a replay that was
// refused for its sake must not take it away.
func markDeadSQL(schema string) string {
	return strings.ReplaceAll(`
insert into {{schema}}.inbox_messages as m (consumer, source, message_id, letter_id)
values ($1, $2, $3, $4)
on conflict (consumer, source, message_id) do update
   set letter_id = excluded.letter_id, handled_at = clock_timestamp()
 where m.letter_id is not null and (m.letter_id = excluded.letter_id or not $5)`+raiseCommit, "{{schema}}", schema)
}

// attemptsSQL are the statements about handler starts.
type attemptsSQL struct{ open, begin, end, undo, forget string }

func newAttemptsSQL(schema string) attemptsSQL {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{{schema}}", schema) }
	return attemptsSQL{
		open: in(`
select coalesce(max(starts - ended), 0) from {{schema}}.inbox_attempts
 where consumer = $1 and source = $2 and message_id = $3`),

		// $4 says that an operator replays the message: then a row that says
		// "handled" is not asked for, the claim decides.
		begin: in(`
with done as (
  select from {{schema}}.inbox_messages
   where consumer = $1 and source = $2 and message_id = $3 and letter_id is null and not $4
), started as (
  insert into {{schema}}.inbox_attempts as a (consumer, source, message_id, starts, ended)
  select $1, $2, $3, 1, 0 where not exists (select from done)
  on conflict (consumer, source, message_id) do update set starts = a.starts + 1, last_at = clock_timestamp()` + raiseCommit + `, starts, starts - 1 - ended as open
)
select coalesce(max(starts), 0), coalesce(max(open), 0), not exists (select from started) from started`),

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
