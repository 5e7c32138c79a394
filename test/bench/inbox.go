package main

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// The effect of a message on its aggregate.
const (
	applyOne = "update aggregate set n = n + 1 where id = $1"
	applyAll = "update aggregate a set n = a.n + x.n from (select id, count(*) as n from unnest($1::int[]) id group by id) x where a.id = x.id"
)

// inboxRows measures handlers with a database, from the stream to the
// acknowledgement: by the inbox, by what people write themselves, and in batches.
func inboxRows(ctx context.Context, b *bench) ([]Row, error) {
	db, err := b.database(ctx, "inbox")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if err := makeAggregates(ctx, db); err != nil {
		return nil, err
	}
	if _, err := db.Exec(ctx, "create table seen (consumer text, source text, message_id uuid, handled_at timestamptz not null default clock_timestamp(), primary key (consumer, source, message_id))"); err != nil {
		return nil, err
	}
	feed, err := b.feed(ctx, b.sizes.handled)
	if err != nil {
		return nil, err
	}
	defer feed.close()
	f, err := b.interleave(ctx,
		side{"inbox handler", feed.handled(db, byInbox)},
		side{"transaction by hand", feed.handled(db, byHand)},
		side{"inbox handler, batches", feed.handled(db, byBatch)},
	)
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("inbox/handwritten", "inbox handler / hand-written transaction of the same statements", "msg/s", 0.9, f[0], f[1]),
		ratioRow("inbox/batch", "batch inbox handler / single inbox handler", "msg/s", 4, f[2], f[0]),
	}, nil
}

// handled measures a consumer with a kind of route, on an inbox that has seen
// nothing.
func (f *feed) handled(db *database, route func(*database, *inbox.Inbox, *countdown) envelope.Route) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		in, err := freshInbox(ctx, db, "seen")
		if err != nil {
			return 0, err
		}
		left := newCountdown(f.size)
		return f.run(ctx, consumer.Config{}, left, route(db, in, left))
	}
}

// freshInbox returns an inbox that has seen nothing. Tables of the group's own are
// emptied too.
func freshInbox(ctx context.Context, db *database, own ...string) (*inbox.Inbox, error) {
	tables := append([]string{"messaging.inbox_messages", "messaging.inbox_attempts", "messaging.inbox_parked", "messaging.inbox_leases"}, own...)
	if _, err := db.Exec(ctx, "truncate "+strings.Join(tables, ", ")); err != nil {
		return nil, err
	}
	if err := settle(ctx, db); err != nil {
		return nil, err
	}
	return inbox.New(db.Pool, "bench", inbox.Config{})
}

// counting calls done after each message that its handler finished.
func counting(route envelope.Route, left *countdown) envelope.Route {
	handle := route.Handle
	route.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		err := handle(ctx, d)
		if err == nil {
			left.done()
		}
		return err
	}
	return route
}

func byInbox(_ *database, in *inbox.Inbox, left *countdown) envelope.Route {
	return counting(inbox.On(in, counter, func(ctx context.Context, tx pgx.Tx, m envelope.Received[counted]) error {
		_, err := tx.Exec(ctx, applyOne, m.Data.N%aggregates)
		return err
	}), left)
}

func byBatch(_ *database, in *inbox.Inbox, left *countdown) envelope.Route {
	return counting(inbox.OnBatch(in, counter, inbox.Batch{}, func(ctx context.Context, tx pgx.Tx, all []envelope.Received[counted]) error {
		ids := make([]int, len(all))
		for i, m := range all {
			ids[i] = m.Data.N % aggregates
		}
		_, err := tx.Exec(ctx, applyAll, ids)
		return err
	}), left)
}

// byHand is what people write: a table of what was seen, and the effect.
func byHand(db *database, _ *inbox.Inbox, left *countdown) envelope.Route {
	return counting(consumer.On(counter, func(ctx context.Context, m envelope.Received[counted]) error {
		return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, "insert into seen (consumer, source, message_id) values ($1, $2, $3) on conflict do nothing",
				"bench", m.Envelope.Source.String(), m.Envelope.ID)
			if err != nil || tag.RowsAffected() == 0 {
				return err
			}
			_, err = tx.Exec(ctx, applyOne, m.Data.N%aggregates)
			return err
		})
	}), left)
}
