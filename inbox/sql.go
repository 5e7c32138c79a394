package inbox

import "strings"

// claimSQL inserts the row that stands for the effect. It returns no row when
// the message was handled, or is dead and $4 does not name its letter.
//
// "do update … where" and not "do nothing": only the former can revive a dead
// row, and both wait for a copy that is being handled at this moment. With $4
// null the comparison is null, so an ordinary delivery revives nothing.
//
// The commit is made synchronous in the same round trip, in RETURNING, because
// there it is evaluated exactly when there is something to commit.
func claimSQL(schema string) string {
	return strings.ReplaceAll(`
insert into {{schema}}.inbox_messages as m (consumer, source, message_id)
values ($1, $2, $3)
on conflict (consumer, source, message_id) do update
   set letter_id = null, handled_at = clock_timestamp()
 where m.letter_id = $4
returning case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end`, "{{schema}}", schema)
}

// markDeadSQL records a dead letter, unless the effect is there: a message whose
// letter was stored may still have been handled by another copy of it.
func markDeadSQL(schema string) string {
	return strings.ReplaceAll(`
insert into {{schema}}.inbox_messages as m (consumer, source, message_id, letter_id)
values ($1, $2, $3, $4)
on conflict (consumer, source, message_id) do update
   set letter_id = excluded.letter_id, handled_at = clock_timestamp()
 where m.letter_id is not null`, "{{schema}}", schema)
}
