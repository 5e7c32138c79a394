-- Tails: what a stream holds of ours behind a cursor counts as stored, however
-- long ago its duplicate window forgot it.

-- Whatever the cursor has not passed lies in the stream behind this sequence, if
-- it is there at all. It is below acked_sequence where messages were under way
-- side by side. 0: not known, or nothing was published yet.
alter table {{schema}}.outbox_state add column tail_after bigint not null default 0;
alter table {{schema}}.outbox_anchors add column tail_after bigint not null default 0;
update {{schema}}.outbox_state set tail_after = acked_sequence;
update {{schema}}.outbox_anchors set tail_after = acked_sequence;

-- Messages of ours that the stream holds and the table does not: the database
-- went back to an earlier moment, and others may have acted on them.
alter table {{schema}}.outbox_state add column lost_timeline bigint not null default 0;

-- Rows that came from another PostgreSQL cluster, as from a dump: their
-- transaction ids mean nothing here until the relay has gone through them. One row
-- per stream while it does.
create table {{schema}}.outbox_foreign (
	stream text not null,
	-- The cluster that the rows are made fit for.
	cluster bigint not null,
	-- The cursor as it was there: a row is published if it is visible in base and not
	-- above next_floor, or visible in target and not above position. Null once all
	-- rows are told apart, which makes fresh the base of the stream.
	base pg_snapshot,
	target pg_snapshot,
	position bigint,
	next_floor bigint not null,
	-- Numbers that this cluster may have given out again, since the sequence did not
	-- come along: none of those rows counts as published.
	again_through bigint not null,
	-- Rows up to low are published, rows between low and high are told apart, and
	-- have been up to visited. All above high are of this cluster.
	low bigint not null,
	visited bigint not null,
	high bigint not null,
	-- The first base here, and its floor.
	fresh pg_snapshot not null,
	floor bigint not null,
	-- How far the ids of the published rows are rewritten, in their order.
	written_xid xid8,
	written_seq bigint,
	constraint outbox_foreign_pkey primary key (stream)
);
