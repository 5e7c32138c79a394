package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// delayed is more messages than the durable has places: without parking none of
// the others would ever be delivered.
const delayed = inFlight + 50

// parkedRows measures what a handler's others suffer when it delays messages for
// an hour. The durable must have nothing unacknowledged afterwards.
func parkedRows(ctx context.Context, b *bench) ([]Row, error) {
	db, err := b.database(ctx, "parked")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if err := makeAggregates(ctx, db); err != nil {
		return nil, err
	}
	feed, err := b.feed(ctx, b.sizes.handled)
	if err != nil {
		return nil, err
	}
	defer feed.close()
	f, err := b.interleave(ctx,
		side{"none delayed", feed.delaying(db, 0)},
		side{"one delayed by 1 h", feed.delaying(db, 1)},
		side{fmt.Sprintf("%d delayed by 1 h", delayed), feed.delaying(db, delayed)},
	)
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("delay/one", "inbox handler, one message delayed by 1 h / none", "msg/s", 0.9, f[1], f[0]),
		ratioRow("delay/many", "inbox handler, more delayed by 1 h than the durable has places / none", "msg/s", 0, f[2], f[0]),
	}, nil
}

// delaying measures a consumer that delays the first n messages by an hour and
// handles the rest.
func (f *feed) delaying(db *database, n int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		in, err := freshInbox(ctx, db)
		if err != nil {
			return 0, err
		}
		left := newCountdown(f.size - n)
		rate, err := f.run(ctx, consumer.Config{Store: in}, left,
			counting(inbox.On(in, counter, func(ctx context.Context, tx pgx.Tx, m envelope.Received[counted]) error {
				if m.Data.N < n {
					return envelope.RetryAfter(time.Hour, nil)
				}
				_, err := tx.Exec(ctx, applyOne, m.Data.N%aggregates)
				return err
			}), left))
		return rate * float64(f.size-n) / float64(f.size), errors.Join(err, f.acknowledged(ctx), parked(ctx, db, n))
	}
}

// acknowledged fails if the durable holds a message back.
func (f *feed) acknowledged(ctx context.Context) error {
	declared := reader(inFlight)
	durable, err := f.conn.JetStream().Consumer(ctx, declared.Stream.Name, declared.Durable)
	if err != nil {
		return err
	}
	if n := durable.CachedInfo().NumAckPending; n > 0 {
		return fmt.Errorf("%d messages hold places of the durable", n)
	}
	return nil
}

// parked fails unless n messages are parked.
func parked(ctx context.Context, db *database, n int) error {
	var have int
	err := db.QueryRow(ctx, "select count(*) from messaging.inbox_parked").Scan(&have)
	if err == nil && have != n {
		err = fmt.Errorf("%d messages are parked instead of %d", have, n)
	}
	return err
}
