-- Tasks: what a service knows of those it works on, which ones somebody asked to
-- cancel, and, where the projection runs, everybody's.

-- One row per task that a command handler of this service reports on. The row is
-- what numbers the task's events, and its lock what puts them in order.
create table {{schema}}.task_runs (
	-- The id of the command.
	task_id uuid not null,
	state text not null,
	-- Of the last event; raised by every one, never set back.
	version bigint not null,
	-- Starts of the handler that were reported.
	attempt integer not null,
	percent smallint,
	message text not null default '',
	updated_at timestamptz not null default clock_timestamp(),
	constraint task_runs_pkey primary key (task_id)
) with (fillfactor = 70);

create index task_runs_updated_idx on {{schema}}.task_runs (updated_at);

-- Requests to cancel, of whatever service's tasks: the first of each.
create table {{schema}}.task_cancels (
	task_id uuid not null,
	requested_by text not null,
	reason text not null,
	noted_at timestamptz not null default clock_timestamp(),
	constraint task_cancels_pkey primary key (task_id)
);

create index task_cancels_noted_idx on {{schema}}.task_cancels (noted_at);

-- The projection. What is null is not known yet.
create table {{schema}}.tasks (
	id uuid not null,
	-- "" as long as only something beside the lifecycle is known.
	state text not null,
	-- Of the event that the columns down to finished_at are of.
	version bigint not null,
	event_id uuid not null,
	attempt integer not null,
	percent smallint,
	message text not null,
	result jsonb,
	error jsonb,
	finished_at timestamptz,
	-- Facts that do not change: the least of what was told.
	kind text,
	resource text,
	title text,
	created_by text,
	tenant_id text,
	project_id text,
	environment_id text,
	datacenter_id text,
	correlation_id text,
	created_at timestamptz,
	started_at timestamptz,
	-- The first request to cancel.
	cancel_at timestamptz,
	cancel_event_id uuid,
	cancel_by text,
	cancel_reason text,
	updated_at timestamptz not null,
	constraint tasks_pkey primary key (id)
) with (fillfactor = 70);

create index tasks_updated_idx on {{schema}}.tasks (updated_at);
create index tasks_correlation_idx on {{schema}}.tasks (correlation_id);

-- Every event of a task but its progress.
create table {{schema}}.task_history (
	task_id uuid not null,
	event_id uuid not null,
	verb text not null,
	version bigint not null,
	source text not null,
	occurred_at timestamptz not null,
	data jsonb not null,
	constraint task_history_pkey primary key (task_id, event_id)
);
