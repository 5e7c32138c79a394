package main

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
)

// counted is the data of every message; N tells messages apart where that
// matters, and Pad makes the envelope about 700 bytes long.
type counted struct {
	Key string `json:"key"`
	N   int    `json:"n"`
	Pad string `json:"pad"`
}

// counter is constant: the one type of message in the benchmark.
var counter = envelope.MustEvent[counted](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "counted", Version: 1})

// pad is constant.
var pad = strings.Repeat("x", 250)

func draft(key string, n int) envelope.Draft {
	return counter.New(key, counted{Key: key, N: n, Pad: pad}, envelope.Project("project-1"))
}

// origin is the context of a request from the edge.
func origin(ctx context.Context) context.Context {
	return envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1"))
}

// sample is one real message, for those who publish without the outbox.
func sample(ctx context.Context) (envelope.Message, []byte, error) {
	m, err := envelope.New(origin(ctx), subject.Maskin, draft("key-1", 1))
	if err != nil {
		return m, nil, err
	}
	data, err := m.Envelope.Encode()
	return m, data, err
}

func newOutbox() (*outbox.Outbox, error) { return outbox.New(set(), outbox.Config{}) }

// fill adds n messages over 1,000 keys: a real one, and copies of it made inside
// the database, in transactions of 1,000 rows as many writers leave them.
func fill(ctx context.Context, db *database, n int) error {
	out, err := newOutbox()
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return out.Enqueue(origin(ctx), tx, draft("key-1", 1)) })
	if err != nil {
		return err
	}
	return copyRows(ctx, db, n-1)
}

func copyRows(ctx context.Context, db *database, n int) error {
	_, err := db.Exec(ctx, `
create table if not exists sample as select * from messaging.outbox_events limit 0;
truncate sample;
insert into sample select * from messaging.outbox_events order by seq desc limit 1`)
	if err != nil {
		return err
	}
	return inChunks(ctx, db, n, `
insert into messaging.outbox_events (stream, id, subject, ordering_key, headers, envelope)
select e.stream, c.id, e.subject, 'key-' || c.g % 1000, replace(e.headers, e.id::text, c.id::text), e.envelope
from sample e, (select gen_random_uuid() as id, g from generate_series(1, $1::int) g) c`)
}

// inChunks runs an insert of $1 rows until n are there. It does not wait for the
// disk after each: settle does.
func inChunks(ctx context.Context, db *database, n int, insert string) error {
	const chunk = 1000
	for left := n; left > 0; left -= chunk {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "set local synchronous_commit = off"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, insert, min(left, chunk))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settle leaves the tables as autovacuum would, and the disk without a backlog.
func settle(ctx context.Context, db *database) error {
	if _, err := db.Exec(ctx, "vacuum analyze"); err != nil {
		return err
	}
	_, err := db.Exec(ctx, "checkpoint")
	return err
}

// markUnpublished makes the relay start from the first row again.
func markUnpublished(ctx context.Context, db *database) error {
	_, err := db.Exec(ctx, "with anchors as (delete from messaging.outbox_anchors) delete from messaging.outbox_state")
	return err
}

// markPublished makes the relay take all committed rows for published and forget
// what it knows of the stream, as if it had drained the table into this one.
func markPublished(ctx context.Context, db *database) error {
	if err := markUnpublished(ctx, db); err != nil {
		return err
	}
	_, err := db.Exec(ctx, `
insert into messaging.outbox_state (stream, base, floor, next_floor, system_identifier)
select $1, pg_current_snapshot(), last.seq, last.seq, (select system_identifier from pg_control_system())
from (select coalesce(max(seq), 0) as seq from messaging.outbox_events) last`, stream().Name)
	return err
}
