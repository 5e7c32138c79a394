-- What the databases and streams of both sites say, copied side by side so that one
-- query can hold them against each other. Nothing here has a unique constraint: what
-- came twice must be seen.

create schema facts;

-- The sites, and the changes that were asked of each.
create table facts.sites (site text, asked bigint);

-- The databases: what was changed at a site, and what took effect there. place is the
-- order of the effects, origin the site whose change it was.
create table facts.changes (site text, server_id text, revision int, made_at timestamptz);
create table facts.effects (site text, origin text, place bigint, message_id uuid, server_id text, revision int, applied_at timestamptz);

-- The streams: a site's own events, where origin is the site itself, and its copy of
-- the other's. place is the sequence.
create table facts.stored (site text, origin text, place bigint, message_id uuid, server_id text, revision int);

-- Dead letters.
create table facts.letters (site text, letter_id text);

-- What happened to the link, and from when to when changes were made.
create table facts.faults (place int, kind text, began timestamptz, healed timestamptz);
create table facts.traffic (began timestamptz, ended timestamptz);
