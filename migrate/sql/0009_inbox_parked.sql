-- Parked messages: those whose next attempt is far away.

-- Left in the stream's consumer, each would hold one of its places for messages
-- that are not acknowledged, and a handful of them would stop it. So they wait
-- here: the row is committed before the original is acknowledged, and goes in
-- the transaction of the effect.
create table {{schema}}.inbox_parked (
	-- Name of the handler, as in inbox_messages.
	consumer text not null,
	source text not null,
	message_id uuid not null,
	-- The dead letter that is being replayed, or empty. Part of the key: an
	-- operator's replay does not wait for an ordinary copy of the message.
	letter_id text not null,
	-- The durable that parked it: its routes and its order are meant.
	durable text not null,
	-- What the message keeps its order with.
	ordering_key text not null,
	-- Where the original is stored. A stream that was made anew counts from 1
	-- again, so its time of creation comes before the sequence.
	stream text not null,
	stream_created timestamptz not null,
	sequence bigint not null,
	stored_at timestamptz not null,
	-- The delivery, byte by byte; headers as names and values in turn. Foreign
	-- headers may hold any bytes.
	subject text not null,
	headers bytea[] not null,
	data bytea not null,
	-- Handler starts so far, and the error of the last; for operators.
	attempts integer not null,
	reason text not null,
	parked_at timestamptz not null default clock_timestamp(),
	-- When it is to be handled; while it is claimed, when the claim ends.
	due_at timestamptz not null,
	-- Who handles it at this moment, or empty. What a process does to the row
	-- names its claim, so that one that lost it does nothing.
	claim text not null default '',
	-- The operator who made it due, and why; null where nobody did.
	released_by text,
	release_reason text,
	constraint inbox_parked_pkey primary key (consumer, source, message_id, letter_id)
);

-- What is due, and how much there is.
create index inbox_parked_due on {{schema}}.inbox_parked (consumer, durable, due_at);

-- The head of a key, and whether a key is parked.
create index inbox_parked_key on {{schema}}.inbox_parked (consumer, durable, ordering_key, stream_created, sequence);
