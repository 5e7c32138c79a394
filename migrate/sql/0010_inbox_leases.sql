-- Ordered consumers: which instance handles a durable, and which keys wait.

-- One row per durable, written on change of the holder and at each renewal. The
-- expiry is database time. The term fences: a handler's transaction begins with
-- a look at it.
create table {{schema}}.inbox_leases (
	-- "<stream>/<durable>".
	name text not null,
	holder text not null,
	-- Raised by every acquisition, and never set back.
	term bigint not null,
	expires_at timestamptz not null,
	-- Highest stream sequence that a handler may have been started for. The
	-- broker forgets its count of deliveries at each take-over.
	delivered bigint not null default 0,
	constraint inbox_leases_pkey primary key (name)
) with (fillfactor = 50);

-- Keys that wait for an operator's decision about a dead letter.
create table {{schema}}.inbox_held_keys (
	lease text not null,
	ordering_key text not null,
	letter_id text not null,
	-- The message that became the letter: when it comes again it is not held.
	source text not null,
	message_id uuid not null,
	held_at timestamptz not null default clock_timestamp(),
	constraint inbox_held_keys_pkey primary key (lease, ordering_key)
);
