-- The database of maskin at one site.

-- The servers that stand here.
create table servers (
	id       text primary key,
	size     text not null,
	revision int not null
);

-- What was changed about them, one row for each event. made_at is a moment before
-- the commit.
create table changes (
	server_id text not null,
	revision  int not null,
	made_at   timestamptz not null default clock_timestamp()
);

-- The servers of both sites, from events.
create table register (
	site      text not null,
	server_id text not null,
	size      text not null,
	revision  int not null,
	primary key (site, server_id)
);

-- Witness for the check at the end: which message had which effect, in the order of
-- the effects. It has no unique constraint, so that an effect that came twice is seen
-- and not refused. A service of your own does not need it.
create table ledger (
	place      bigint generated always as identity,
	origin     text not null,
	message_id uuid not null,
	server_id  text not null,
	revision   int not null,
	applied_at timestamptz not null default clock_timestamp()
);
