-- What happened to the link, one row for each fault.
with arrived as (
	select e.site, c.made_at, min(e.applied_at) as applied_at
	from facts.effects e join facts.changes c on (c.site, c.cargo, c.server_id, c.revision) = (e.origin, e.cargo, e.server_id, e.revision)
	where e.site <> e.origin group by e.site, e.cargo, c.site, c.server_id, c.revision, c.made_at
)
select
	kind,
	extract(epoch from f.began - t.began)::float8 as after,
	extract(epoch from healed - f.began)::float8 as lasted,
	-- What was committed meanwhile, and how much of it took effect at the other site
	-- meanwhile.
	(select count(*) from facts.changes where made_at between f.began and f.healed) as made,
	(select count(*) from arrived where made_at >= f.began and applied_at <= f.healed) as passed,
	-- From the heal until all that was committed before it had its effect at the other
	-- site, for the slower site.
	(select coalesce(extract(epoch from greatest(f.healed, max(applied_at)) - f.healed), 0) from arrived where made_at <= f.healed)::float8 as caught_up
from facts.faults f cross join facts.traffic t
order by place
