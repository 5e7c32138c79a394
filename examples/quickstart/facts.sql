-- What the services' databases, the streams and the dead letters say, copied side
-- by side so that one query can hold them against each other. Nothing here has a
-- unique constraint: what came twice must be seen.

create schema facts;

-- The input file, and what the catalogues knew before the repair.
create table facts.wanted (server_id text, revision int, hostname text, site text, size text);
create table facts.sites (name text);
create table facts.sizes (name text);

-- sentral's database.
create table facts.requests (server_id text, revision int, size text, correlation_id text);

-- The streams: place is the sequence.
create table facts.commands (place bigint, message_id uuid, server_id text, revision int, correlation_id text);
create table facts.events (place bigint, message_id uuid, server_id text, revision int, correlation_id text);

-- The ledgers of maskin and plattform: place is the order of the effects.
create table facts.handled (place bigint, message_id uuid, server_id text, revision int, attempt int);
create table facts.applied (place bigint, message_id uuid, server_id text, revision int, attempt int);

-- What came of it.
create table facts.servers (server_id text, hostname text, size text);
create table facts.nodes (server_id text, hostname text, size text);

-- Dead letters of both services.
create table facts.letters (letter_id text, correlation_id text, attempts int, closed boolean, replayed boolean);

-- What the broker says of the two durables: deliveries made, and of how many
-- messages.
create table facts.deliveries (durable text, made bigint, messages bigint);
