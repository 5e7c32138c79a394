-- The closing table, one row for each site. Each figure is counted from databases and
-- streams; no service is asked how it did.
with
-- What has to take effect where: an event at both sites, a command at the other one.
due as (
	select s.site, c.cargo, c.site as origin, c.server_id, c.revision, c.made_at
	from facts.sites s cross join facts.changes c where c.cargo = 'event' or c.site <> s.site
),
-- The first effect of each.
happened as (
	select site, cargo, origin, server_id, revision, min(applied_at) as applied_at
	from facts.effects group by site, cargo, origin, server_id, revision
),
arrived as (
	select site, cargo, due.origin, due.made_at, happened.applied_at
	from due join happened using (site, cargo, origin, server_id, revision)
),
-- The order of effects, and of what lies in the streams. A message that a stream holds
-- twice counts where it first stood: the inbox skips the second.
lines as (
	select 'effects' as line, site, cargo, origin, server_id, revision, place from facts.effects
	union all select 'stored', site, cargo, origin, server_id, revision, min(place) from facts.stored
		group by site, cargo, origin, message_id, server_id, revision
),
steps as (
	select site, revision, max(revision) over (partition by line, site, cargo, origin, server_id order by place
		rows between unbounded preceding and 1 preceding) as before from lines
),
-- A fault is over for a site when everything that the other one committed before its
-- end has had its effect.
caught as (
	select f.place, a.site, f.began, f.healed, greatest(f.healed, max(a.applied_at)) as caught_up
	from facts.faults f join arrived a on a.origin <> a.site and a.made_at <= f.healed
	group by f.place, a.site, f.began, f.healed
),
-- When the link was disturbed while requests were made, and when it was not.
spans as (
	select whole, coalesce((select range_agg(tstzrange(began, caught_up)) from caught), '{}') * whole as disturbed
	from (select tstzmultirange(tstzrange(began, ended)) as whole from facts.traffic) t
),
seconds as (
	select
		(select coalesce(sum(extract(epoch from upper(r) - lower(r))), 0) from unnest(disturbed) r)::float8 as disturbed,
		(select coalesce(sum(extract(epoch from upper(r) - lower(r))), 0) from unnest(whole - disturbed) r)::float8 as undisturbed
	from spans
),
-- The site's own events that took effect at the site itself.
own as (
	select a.site, count(*) filter (where a.applied_at <@ disturbed) as disturbed,
		count(*) filter (where a.applied_at <@ (whole - disturbed)) as undisturbed,
		percentile_cont(0.99) within group (order by extract(epoch from a.applied_at - a.made_at)) filter (where a.applied_at <@ disturbed) as p99_disturbed,
		percentile_cont(0.99) within group (order by extract(epoch from a.applied_at - a.made_at)) filter (where a.applied_at <@ (whole - disturbed)) as p99_undisturbed
	from arrived a cross join spans where a.origin = a.site group by a.site
)
select
	s.site,
	s.events as asked_events,
	s.commands as asked_commands,
	(select count(*) from facts.changes c where c.site = s.site and c.cargo = 'event') as events,
	(select count(*) from facts.changes c where c.site = s.site and c.cargo = 'command') as commands,
	-- Different messages of the other site, and what the streams here hold beyond them.
	(select count(distinct message_id) from facts.stored m where m.site = s.site and m.origin <> s.site and m.cargo = 'event') as copied_events,
	(select count(distinct message_id) from facts.stored m where m.site = s.site and m.origin <> s.site and m.cargo = 'command') as copied_commands,
	(select count(*) - count(distinct message_id) from facts.stored m where m.site = s.site and m.origin <> s.site) as repeats,
	(select count(*) from facts.effects e where e.site = s.site and e.origin = s.site) as own_effects,
	(select count(*) from facts.effects e where e.site = s.site and e.origin <> s.site and e.cargo = 'event') as other_effects,
	(select count(*) from facts.effects e where e.site = s.site and e.origin <> s.site and e.cargo = 'command') as carried,
	-- Due here, and without an effect.
	(select count(*) from due left join happened h using (site, cargo, origin, server_id, revision) where due.site = s.site and h.applied_at is null) as lost,
	-- Effects beyond the first.
	(select count(*) - count(distinct (cargo, origin, server_id, revision)) from facts.effects e where e.site = s.site) as duplicated,
	(select count(*) from steps where steps.site = s.site and revision < before) as out_of_order,
	-- Effects and messages that nothing committed is behind.
	(select count(*) from facts.stored m where m.site = s.site and not exists (select from facts.changes c
		where (c.site, c.cargo, c.server_id, c.revision) = (m.origin, m.cargo, m.server_id, m.revision))) +
	(select count(*) from facts.effects e where e.site = s.site and not exists (select from facts.changes c
		where (c.site, c.cargo, c.server_id, c.revision) = (e.origin, e.cargo, e.server_id, e.revision))) as phantoms,
	(select count(*) from facts.letters l where l.site = s.site) as letters,
	-- From the last heal until all that the other site committed before it had its effect.
	coalesce((select extract(epoch from caught_up - healed) from caught where caught.site = s.site order by place desc limit 1), 0)::float8 as caught_up,
	coalesce(own.disturbed / nullif(seconds.disturbed, 0), 0)::float8 as rate_disturbed,
	coalesce(own.undisturbed / nullif(seconds.undisturbed, 0), 0)::float8 as rate_undisturbed,
	coalesce(own.p99_disturbed, 0)::float8 as p99_disturbed,
	coalesce(own.p99_undisturbed, 0)::float8 as p99_undisturbed
from facts.sites s left join own using (site) cross join seconds
order by s.site
