-- The database of plattform: nodes that workloads can be placed on.

create table nodes (
	server_id text primary key,
	hostname  text not null,
	site      text not null,
	size      text not null,
	revision  int not null
);

-- Witness for the check at the end, as in maskin.sql.
create table ledger (
	place      bigint generated always as identity,
	message_id uuid not null,
	server_id  text not null,
	revision   int not null,
	attempt    int not null
);
