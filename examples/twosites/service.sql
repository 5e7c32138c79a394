-- The database of maskin at one site.

-- The servers that stand here, and those of the other site that something was ordered
-- for: the size last announced or asked for, and how often that was.
create table servers (
	cargo    text not null, -- event or command
	id       text not null,
	size     text not null,
	revision int not null,
	primary key (cargo, id)
);

-- One row for each event and each command that was committed here. made_at is a moment
-- before the commit.
create table changes (
	cargo     text not null,
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
	cargo      text not null,
	origin     text not null, -- the site whose message it was
	message_id uuid not null,
	server_id  text not null,
	revision   int not null,
	applied_at timestamptz not null default clock_timestamp()
);
