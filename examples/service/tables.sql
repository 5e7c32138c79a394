-- The service's own tables. Every start runs this, so it only adds.
create table if not exists node (
	id       text    primary key,
	tenant   text    not null,
	hostname text    not null,
	size     text    not null,
	revision integer not null,
	state    text    not null default 'ready' check (state in ('ready', 'drained'))
);
create table if not exists workload (
	id   text primary key,
	node text references node
);
