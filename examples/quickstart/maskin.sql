-- The database of maskin: the servers it runs.

create table sizes (
	name       text primary key,
	cores      int not null,
	memory_gib int not null
);
insert into sizes values ('small', 2, 4), ('medium', 4, 16), ('large', 8, 32), ('xlarge', 16, 64),
	('memory_large', 8, 128), ('storage_large', 8, 32);

create table servers (
	id        text primary key,
	tenant_id text not null,
	hostname  text not null unique,
	site      text not null,
	size      text not null references sizes,
	revision  int not null
);

-- Witness for the check at the end: which message had which effect, in the order
-- of the effects. It has no unique constraint, so that an effect that came twice
-- is seen and not refused. A service of your own does not need it.
create table ledger (
	place      bigint generated always as identity,
	message_id uuid not null,
	server_id  text not null,
	revision   int not null,
	attempt    int not null
);
