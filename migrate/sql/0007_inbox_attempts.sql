-- Attempts: how often a handler was started for a message that failed before.

-- A first delivery that succeeds writes nothing here: a commit per start would
-- cost a third of a consumer's throughput. From a redelivery on, the start is
-- committed before the handler runs, so that a start which killed its process is
-- remembered. A row goes when its message is done.
create table {{schema}}.inbox_attempts (
	consumer text not null,
	source text not null,
	message_id uuid not null,
	-- Handler starts that are known of.
	starts integer not null,
	-- The number of the latest start that ended with a verdict. Starts after it
	-- never ended, or run at this moment.
	ended integer not null,
	first_at timestamptz not null default clock_timestamp(),
	last_at timestamptz not null default clock_timestamp(),
	constraint inbox_attempts_pkey primary key (consumer, source, message_id)
);
