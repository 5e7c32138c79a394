-- Tails: what a stream holds of ours behind a cursor counts as stored, however
-- long ago its duplicate window forgot it.

-- Whatever the cursor has not passed lies in the stream behind this sequence, if
-- it is there at all. It is below acked_sequence where messages were under way
-- side by side. 0: not known, or nothing was published yet.
alter table {{schema}}.outbox_state add column tail_after bigint not null default 0;
alter table {{schema}}.outbox_anchors add column tail_after bigint not null default 0;
update {{schema}}.outbox_state set tail_after = acked_sequence;
update {{schema}}.outbox_anchors set tail_after = acked_sequence;

-- Messages of ours that the stream holds and the table does not: the database
-- went back to an earlier moment, and others may have acted on them.
alter table {{schema}}.outbox_state add column lost_timeline bigint not null default 0;
