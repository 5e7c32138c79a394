-- What the databases and streams of both sites say, copied side by side so that one
-- query can hold them against each other. Nothing here has a unique constraint: what
-- came twice must be seen.

create schema facts;

-- The sites, and how many events and commands were asked of each.
create table facts.sites (site text, events bigint, commands bigint);

-- The databases: what was committed at a site, and what took effect there. cargo is
-- event or command, place the order of the effects, origin the site whose message it
-- was.
create table facts.changes (site text, cargo text, server_id text, revision int, made_at timestamptz);
create table facts.effects (site text, cargo text, origin text, place bigint, message_id uuid, server_id text, revision int, applied_at timestamptz);

-- The streams: a site's own events, where origin is the site itself, and what came from
-- the other one. place is the sequence.
create table facts.stored (site text, cargo text, origin text, place bigint, message_id uuid, server_id text, revision int);

-- Dead letters.
create table facts.letters (site text, letter_id text);

-- What happened to the link, and from when to when requests were made.
create table facts.faults (place int, kind text, began timestamptz, healed timestamptz);
create table facts.traffic (began timestamptz, ended timestamptz);
