-- Healing: where the relay goes back to when a broker lost what it had stored.

-- Earlier cursors of each stream. An anchor is a state row as it was: the cursor,
-- and the message that was the newest in the stream when everything up to the
-- cursor was stored. If the stream still holds that message there, nothing before
-- the cursor is lost. The newest anchor is outbox_state itself. Thinned by the
-- relay: at most a few hundred rows per stream.
create table {{schema}}.outbox_anchors (
	stream text not null,
	-- Until when this was the cursor, by the database's clock.
	at timestamptz not null default clock_timestamp(),
	-- The stream's own creation time: an anchor says nothing of another stream.
	stream_created timestamptz,
	-- Sequence 0 without an id: nothing was published yet.
	acked_sequence bigint not null,
	acked_id uuid,
	-- The cursor. All of it, next_floor too: a floor recorded after the base was
	-- taken would hide rows.
	base pg_snapshot not null,
	floor bigint not null,
	next_floor bigint not null,
	target pg_snapshot,
	ceiling bigint,
	position bigint,
	constraint outbox_anchors_pkey primary key (stream, at)
);

-- The creation time of a stream that was found in place of the one we published
-- to: nothing is published to it until an operator accepts it. Null otherwise.
alter table {{schema}}.outbox_state add column recreated timestamptz;

-- How often, and when last, the relay went back because messages were lost.
alter table {{schema}}.outbox_state
	add column rewinds bigint not null default 0,
	add column rewound_at timestamptz;

-- Who accepted a stream that was made anew, and why.
create table {{schema}}.outbox_accepted (
	stream text not null,
	at timestamptz not null default clock_timestamp(),
	-- Creation times of the stream that is gone and of the accepted one.
	created_before timestamptz,
	created_after timestamptz not null,
	accepted_by text not null,
	reason text not null,
	constraint outbox_accepted_pkey primary key (stream, at)
);
