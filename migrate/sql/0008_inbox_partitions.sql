-- Inbox: a ring of partitions, so that what is old goes in one stroke.

-- Message ids of version 7 begin with their time. Those of one stretch of time,
-- 2^29 ms or about six days, share a bucket, and the 16 buckets come round after
-- 99 days. When nothing in a bucket was handled within the horizon, its partition
-- is truncated. Ids that tell no time, of other versions, have bucket 16, which is
-- cleaned row by row. No partition is ever created or dropped, so that no handler
-- can miss one, and none waits for a lock on the table as a whole. The versions of
-- keys, which the same handlers write, have a table of their own.
alter table {{schema}}.inbox_messages rename constraint inbox_messages_pkey to inbox_messages_before_pkey;
alter table {{schema}}.inbox_messages rename to inbox_messages_before;

create table {{schema}}.inbox_messages (
	-- Name of the handler, not of the durable: a local durable and its copy for
	-- another site share it.
	consumer text not null,
	-- Part of the key because ids are unique per source only.
	source text not null,
	-- Envelope id. Never the stream's sequence, which a broker that lost data
	-- gives out again.
	message_id uuid not null,
	-- Which partition, 0 to 16. It follows from message_id alone, so the key with
	-- it is as unique as without.
	bucket smallint not null,
	-- When it was handled or given up, by the database's wall clock: what the
	-- horizon counts from, also where the message is much older.
	handled_at timestamptz not null default clock_timestamp(),
	-- Null: handled. Set: given up, and this is its dead letter; only a replay
	-- that names the letter is let through.
	letter_id text,
	constraint inbox_messages_pkey primary key (consumer, source, message_id, bucket)
) partition by list (bucket);

-- Names and letter ids are short. Without a way to store long ones elsewhere the
-- partitions need no such place.
alter table {{schema}}.inbox_messages
	alter column consumer set storage plain,
	alter column source set storage plain,
	alter column letter_id set storage plain;

-- Answers at once when a partition was last written to, and where old rows are.
create index inbox_messages_handled_at on {{schema}}.inbox_messages (handled_at);

do $$ begin
	for bucket in 0..15 loop
		execute format('create table {{schema}}.inbox_messages_%s partition of {{schema}}.inbox_messages for values in (%s)',
			lpad(bucket::text, 2, '0'), bucket);
	end loop;
end $$;
create table {{schema}}.inbox_messages_other partition of {{schema}}.inbox_messages for values in (16);

insert into {{schema}}.inbox_messages (consumer, source, message_id, bucket, handled_at, letter_id)
select consumer, source, message_id,
	case when get_byte(uuid_send(message_id), 6) / 16 = 7
		then (get_byte(uuid_send(message_id), 1) & 1) * 8 + get_byte(uuid_send(message_id), 2) / 32
		else 16 end,
	handled_at, letter_id
from {{schema}}.inbox_messages_before;
drop table {{schema}}.inbox_messages_before;

-- The newest version of each key that a handler applied, for handlers that ask:
-- what comes late must not undo what is newer.
create table {{schema}}.inbox_versions (
	-- Name of the handler, as in inbox_messages.
	consumer text not null,
	-- What the version is of, as the handler names it.
	key text not null,
	version bigint not null,
	-- When it was written, by the database's wall clock.
	last_at timestamptz not null default clock_timestamp(),
	constraint inbox_versions_pkey primary key (consumer, key)
);

-- At most one row: the instance that cleans, so that replicas share the work.
-- Cleaning twice would do no harm, so nothing is fenced by it.
create table {{schema}}.inbox_janitor (
	-- Always true: the primary key that allows a single row.
	singleton boolean not null default true,
	holder text not null,
	-- By the database's clock; clocks of services may differ.
	expires_at timestamptz not null,
	-- When all partitions had last been looked at.
	swept_at timestamptz,
	constraint inbox_janitor_pkey primary key (singleton),
	constraint inbox_janitor_singleton check (singleton)
);
