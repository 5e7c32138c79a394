package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// skipLocked measures the poller that most services write for themselves: lock
// a batch, publish each, mark it, commit. One poller, as order would break with
// two; it breaks with one as well, since ids are drawn before commits.
func (b *bench) skipLocked(db *database) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		_, err := db.Exec(ctx, `
drop table if exists plain_outbox;
create table plain_outbox (id bigint primary key, message_id uuid, subject text, payload bytea, published_at timestamptz);
insert into plain_outbox select seq, id, subject, envelope from messaging.outbox_events;
create index on plain_outbox (id) where published_at is null;
analyze plain_outbox`)
		if err != nil {
			return 0, err
		}
		conn, err := b.broker(ctx)
		if err != nil {
			return 0, err
		}
		defer conn.NATS().Close()
		return pollFor(ctx, db, conn.JetStream(), b.sizes.window)
	}
}

// pollFor runs the poller for a while and returns messages per second.
func pollFor(ctx context.Context, db *database, js jetstream.JetStream, d time.Duration) (float64, error) {
	began, total := time.Now(), 0
	for time.Since(began) < d {
		var n int
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) (err error) {
			n, err = pollOnce(ctx, tx, js)
			return err
		})
		if err != nil {
			return 0, err
		}
		if total += n; n == 0 {
			break
		}
	}
	if total == 0 {
		return 0, errors.New("the poller found nothing")
	}
	return float64(total) / time.Since(began).Seconds(), nil
}

// pollOnce is the poller itself.
func pollOnce(ctx context.Context, tx pgx.Tx, js jetstream.JetStream) (int, error) {
	rows, err := tx.Query(ctx, `
select id, message_id::text, subject, payload from plain_outbox
where published_at is null order by id limit 500 for update skip locked`)
	if err != nil {
		return 0, err
	}
	type message struct {
		ID         int64
		MessageID  string
		Subject    string
		EventBytes []byte
	}
	batch, err := pgx.CollectRows(rows, pgx.RowToStructByPos[message])
	if err != nil {
		return 0, err
	}
	ids := make([]int64, len(batch))
	for i, m := range batch {
		msg := &nats.Msg{Subject: m.Subject, Data: m.EventBytes}
		if _, err := js.PublishMsg(ctx, msg, jetstream.WithMsgID(m.MessageID)); err != nil {
			return 0, err
		}
		ids[i] = m.ID
	}
	_, err = tx.Exec(ctx, "update plain_outbox set published_at = now() where id = any($1)", ids)
	return len(ids), err
}
