-- Parking: messages that no stream will ever take, and what operators decide.

-- One row per ordering key that is held back. A row of the key is held if its
-- seq is the head's or higher: it is neither published nor forgotten, while the
-- cursor passes over it and the other keys go on. Retention keeps such rows.
create table {{schema}}.outbox_parked (
	stream text not null,
	ordering_key text not null,
	-- The head: the first row of the key that could not be stored.
	seq bigint not null,
	id uuid not null,
	subject text not null,
	-- Why, in words; never a payload.
	cause text not null,
	parked_at timestamptz not null default clock_timestamp(),
	-- An operator let the key go on: the relay publishes what is held in order,
	-- and then deletes this row. Null while the key is held.
	released_at timestamptz,
	released_by text,
	reason text,
	constraint outbox_parked_pkey primary key (stream, ordering_key)
);

-- Messages that an operator gave up: they are never published, also when the
-- cursor goes back. Kept as long as the row in outbox_events.
create table {{schema}}.outbox_discarded (
	stream text not null,
	id uuid not null,
	seq bigint not null,
	ordering_key text not null,
	subject text not null,
	cause text not null,
	discarded_at timestamptz not null default clock_timestamp(),
	discarded_by text not null,
	reason text not null,
	constraint outbox_discarded_pkey primary key (stream, seq)
);

-- When a parked key was last released. What was published then lies behind no
-- anchor from before: going back to one of those would not publish it again.
alter table {{schema}}.outbox_state add column released_at timestamptz;

-- What operators decided about single keys, for the record: the parked row goes
-- with its last message, and a discard with the row it is about.
create table {{schema}}.outbox_decisions (
	stream text not null,
	ordering_key text not null,
	at timestamptz not null default clock_timestamp(),
	-- release, discard or rewind.
	act text not null,
	-- The head it was decided about, and why it was parked.
	seq bigint not null,
	id uuid not null,
	subject text not null,
	cause text not null,
	decided_by text not null,
	reason text not null,
	constraint outbox_decisions_pkey primary key (stream, ordering_key, at)
);

-- Whole streams that an operator wants published again. The relay that leads
-- carries a request out, which is what keeps it in step with the cursor.
create table {{schema}}.outbox_rewinds (
	stream text not null,
	requested_at timestamptz not null default clock_timestamp(),
	-- The anchor to go back to, by its time; null goes back to the beginning. If it
	-- was thinned out meanwhile, the newest one before it is meant, and the
	-- beginning if there is none: never a later one.
	anchor_at timestamptz,
	requested_by text not null,
	reason text not null,
	done_at timestamptz,
	constraint outbox_rewinds_pkey primary key (stream, requested_at)
);
-- One at a time: of two operators one asks, and the other is told who did.
create unique index outbox_rewinds_open on {{schema}}.outbox_rewinds (stream) where done_at is null;
