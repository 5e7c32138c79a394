-- Inbox: which messages a consumer is done with.

-- Written in the transaction of the handler's effect: the row and the effect
-- are there together or not at all, and that is what makes a redelivery, a
-- republished or a replayed message harmless.
create table {{schema}}.inbox_messages (
	-- Name of the handler, not of the durable: a local durable and its copy for
	-- another site share it.
	consumer text not null,
	-- Part of the key because ids are unique per source only.
	source text not null,
	-- Envelope id. Never the stream's sequence, which a broker that lost data
	-- gives out again.
	message_id uuid not null,
	handled_at timestamptz not null default clock_timestamp(),
	-- Null: handled. Set: given up, and this is its dead letter; only a replay
	-- that names the letter is let through.
	letter_id text,
	constraint inbox_messages_pkey primary key (consumer, source, message_id)
);
