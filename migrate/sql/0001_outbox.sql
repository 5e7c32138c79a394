-- Outbox: what committed transactions want published, and how far the relay is.

-- One row per message, written by Enqueue in the service's own transaction and
-- never updated: the relay's position lives in outbox_state, so that publishing
-- leaves no dead tuples in the table that every business transaction writes to.
create table {{schema}}.outbox_events (
	-- The writing transaction. The relay finds new rows by comparing it with a
	-- snapshot. It stands before seq because defaults are evaluated in column
	-- order, and a row's seq must be drawn after its transaction id exists.
	xid xid8 not null default pg_current_xact_id(),
	-- Order of publishing within one key. Gaps are normal (rollback, crash).
	seq bigint generated always as identity,
	-- The JetStream stream the subject belongs to: each has a cursor of its own.
	stream text not null,
	-- Envelope id, also Nats-Msg-Id. Not unique here: ids are made by the
	-- library, and an index on them would cost every write for no reader.
	id uuid not null,
	subject text not null,
	-- Messages of one key are published in commit order, one at a time.
	ordering_key text not null,
	-- "Name: value" lines. Not jsonb: that would reorder and deduplicate.
	headers text not null,
	-- The bytes that are published. Not json or text: every byte must survive.
	envelope bytea not null,
	-- Wall clock, not now(): the age of an event counts from its writing, not
	-- from the start of a long transaction.
	created_at timestamptz not null default clock_timestamp(),
	-- Walks a backlog of a stream in pages. There is no index on seq alone: it
	-- would cost every write, and tempt the planner to read all streams for one.
	constraint outbox_events_pkey primary key (stream, seq)
);

-- New rows of a stream: ranges of xid, each read in (xid, seq) order. In another
-- collation than the column, so that a statement names the index it means: only
-- stream collate "C" can use this one, and only stream the primary key. Between
-- both a planner without statistics guesses, and a wrong guess reads every row.
create index outbox_events_stream_xid on {{schema}}.outbox_events (stream collate "C", xid, seq);

-- One row per destination stream: the relay's cursor and what proves it.
create table {{schema}}.outbox_state (
	stream text not null,
	-- Everything visible in this snapshot has been published. The first one sees
	-- nothing; never the current one, which would skip what is already there.
	base pg_snapshot not null default '1:1:',
	-- Rows with a transaction id from the base's xmax on have a seq above floor: it
	-- was read from the sequence before a transaction drew its id that had ended
	-- when the base was taken. next_floor becomes the floor of the next base.
	floor bigint not null default 0,
	next_floor bigint not null default 0,
	-- While a backlog is walked: the snapshot it ends at, a seq that none of its
	-- rows exceeds, and how far the walk has come. Null while there is none.
	target pg_snapshot,
	ceiling bigint,
	position bigint,
	-- The anchor: the last acknowledged message. The stream is asked for it after
	-- each reconnect; another or no message there means that the broker lost some.
	acked_sequence bigint not null default 0,
	acked_id uuid,
	-- When the stream itself was created: a deleted and newly made stream differs.
	stream_created timestamptz,
	-- The PostgreSQL cluster that the transaction ids belong to; another one
	-- means dump and restore. Null until the relay has first seen the row.
	system_identifier bigint,
	updated_at timestamptz not null default clock_timestamp(),
	constraint outbox_state_pkey primary key (stream)
);

-- At most one row: the relay that is active. Every write to outbox_state locks
-- it and checks holder and term, so that a relay that lost it changes nothing.
create table {{schema}}.outbox_lease (
	-- Always true: the primary key that allows a single row.
	singleton boolean not null default true,
	holder text not null,
	-- Raised with every change of holder.
	term bigint not null,
	-- By the database's clock; clocks of services may differ.
	expires_at timestamptz not null,
	constraint outbox_lease_pkey primary key (singleton),
	constraint outbox_lease_singleton check (singleton)
);

-- Until when the relay sleeps, in seconds since 1970; 0 while it is awake. Writers
-- read it, and notify a sleeping relay only: a NOTIFY in every transaction would
-- make all commits queue up. A relay that dies in its sleep is forgotten when the
-- time is over.
--
-- A sequence, because it is a number that is changed in place: it has no row
-- versions, which would pile up under every writer's eyes as long as anyone holds
-- an old snapshot, and reading it needs no scan.
create sequence {{schema}}.outbox_asleep_until minvalue 0 start 0;

-- The term that has been leading since the database last came up from a crash.
-- Unlogged on purpose: PostgreSQL empties it when it recovers, and on a standby.
-- A cursor may move only while its term is here, because a snapshot taken before
-- a crash says nothing afterwards: ids of transactions that were rolled back
-- unflushed are given out again.
create unlogged table {{schema}}.outbox_alive (
	term bigint not null,
	constraint outbox_alive_pkey primary key (term)
);
