-- Retention: what a stream may hold of ours although its rows are gone.

-- The rows of messages up to this sequence of the stream may be deleted: such a
-- message without a row is no event of a lost timeline.
alter table {{schema}}.outbox_state add column deleted_through bigint not null default 0;
