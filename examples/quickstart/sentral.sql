-- The database of sentral: what was ordered.

create table sites (name text primary key);
insert into sites values ('osl1'), ('osl2'), ('bgo1'), ('trd1'), ('svg1'), ('tos1'),
	('sto1'), ('got1'), ('cph1'), ('hel1'), ('rkv1');

-- One row per server; its row lock makes the requests for a server take turns.
create table orders (
	server_id text primary key,
	revision  int not null,
	size      text not null
);

create table requests (
	server_id      text not null,
	revision       int not null,
	tenant_id      text not null,
	-- Checked at commit: a request for an unknown site fails when its command is
	-- already in the outbox, and takes the command with it.
	site           text not null references sites deferrable initially deferred,
	size           text not null,
	correlation_id text not null,
	requested_at   timestamptz not null default clock_timestamp(),
	primary key (server_id, revision)
);

-- What was asked for and not accepted.
create table refusals (
	server_id text not null,
	reason    text not null
);
