-- The closing figures, as one row. Each is counted from facts of more than one
-- witness; no service is asked how it did.
with
-- A request that is a dead letter nobody has dealt with is not done, but visible.
due as (
	select r.* from facts.requests r
	where not exists (select from facts.letters l where l.correlation_id = r.correlation_id and not l.closed)
),
-- The size that a server has to have in the end: that of its last due request.
final as (
	select distinct on (server_id) server_id, size from due order by server_id, revision desc
),
-- The order of effects and of what lies in the streams. A message that a stream
-- holds twice counts where it first stood: the inbox skips the second.
lines as (
	select 'maskin' as line, server_id, revision, place from facts.handled
	union all select 'plattform', server_id, revision, place from facts.applied
	union all select 'commands', server_id, revision, min(place) from facts.commands group by message_id, server_id, revision
	union all select 'events', server_id, revision, min(place) from facts.events group by message_id, server_id, revision
),
steps as (
	select revision, max(revision) over (partition by line, server_id order by place
		rows between unbounded preceding and 1 preceding) as before from lines
),
expected as (
	select
		count(*) filter (where site not in (select name from facts.sites)) as refused,
		count(*) filter (where site in (select name from facts.sites) and
			(hostname !~ '^[a-z0-9]+(-[a-z0-9]+)*$' or size not in (select name from facts.sizes))) as dead
	from facts.wanted
)
select
	(select count(*) from facts.wanted) as requested,
	(select count(*) from facts.requests) as committed,
	expected.refused as expected_refused,
	(select count(*) from facts.applied) as effects,
	(select count(*) from facts.nodes) as nodes,
	-- Committed, and neither in effect at both services nor a visible dead letter.
	(select count(*) from due where
		not exists (select from facts.handled h where (h.server_id, h.revision) = (due.server_id, due.revision)) or
		not exists (select from facts.applied a where (a.server_id, a.revision) = (due.server_id, due.revision)) or
		not exists (select from facts.servers s where s.server_id = due.server_id) or
		not exists (select from facts.nodes n where n.server_id = due.server_id)) as lost,
	-- Effects, servers and nodes beyond the first.
	(select count(*) - count(distinct (server_id, revision)) from facts.handled) +
	(select count(*) - count(distinct (server_id, revision)) from facts.applied) +
	(select count(*) - count(distinct hostname) from facts.servers) +
	(select count(*) - count(distinct hostname) from facts.nodes) as duplicated,
	-- Steps back, and servers and nodes that did not end at the size last asked for.
	(select count(*) from steps where revision < before) +
	(select count(*) from final join facts.servers s using (server_id) where s.size <> final.size) +
	(select count(*) from final join facts.nodes n using (server_id) where n.size <> final.size) as out_of_order,
	-- Messages in a stream that no committed request is behind.
	(select count(*) from facts.commands c where not exists (select from facts.requests r where r.correlation_id = c.correlation_id)) +
	(select count(*) from facts.events e where not exists (select from facts.requests r where r.correlation_id = e.correlation_id)) as phantoms,
	(select count(*) from facts.letters) as dead_lettered,
	expected.dead as expected_dead,
	(select count(*) from facts.letters where replayed and closed) as replayed,
	-- What was absorbed: deliveries beyond the first, and those of them that found
	-- the effect there. A handler that starts at attempt n was cut short n-1 times;
	-- the rest of the redeliveries reached no handler.
	(select coalesce(sum(made - messages), 0)::bigint from facts.deliveries) as redelivered,
	(select coalesce(sum(made - messages), 0)::bigint from facts.deliveries) -
	(select coalesce(sum(attempt - 1), 0)::bigint from (
		select attempt from facts.handled union all select attempt from facts.applied
		union all select attempts from facts.letters) as cut) as skipped
from expected
