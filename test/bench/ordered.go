package main

import (
	"context"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// orderedRows measures a consumer that keeps the order of each of 1,000 keys
// beside the same one that does not: with a handler that does nothing, and with
// one that has an effect by the inbox.
func orderedRows(ctx context.Context, b *bench) ([]Row, error) {
	db, err := b.database(ctx, "ordered")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if err := makeAggregates(ctx, db); err != nil {
		return nil, err
	}
	var rows []Row
	for _, kind := range []struct {
		name, what string
		size       int
		route      func(*database, *inbox.Inbox, *countdown) envelope.Route
	}{
		{"ordered/empty", "ordered consumer, 1,000 keys / unordered, handler that does nothing", b.sizes.consumed, byNothing},
		{"ordered/inbox", "ordered consumer, 1,000 keys / unordered, inbox handler", b.sizes.handled, byInbox},
	} {
		feed, err := b.feed(ctx, kind.size)
		if err != nil {
			return nil, err
		}
		f, err := b.interleave(ctx,
			side{"ordered", feed.keeping(db, &consumer.Order{}, kind.route)},
			side{"unordered", feed.keeping(db, nil, kind.route)},
		)
		feed.close()
		if err != nil {
			return nil, err
		}
		rows = append(rows, ratioRow(kind.name, kind.what, "msg/s", 0.8, f[0], f[1]))
	}
	return rows, nil
}

// keeping measures a consumer with or without an order, on an inbox that has seen
// nothing. What an ordered one needs to become active is part of it.
func (f *feed) keeping(db *database, order *consumer.Order, route func(*database, *inbox.Inbox, *countdown) envelope.Route) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		in, err := freshInbox(ctx, db)
		if err != nil {
			return 0, err
		}
		left := newCountdown(f.size)
		return f.run(ctx, consumer.Config{Store: in, Order: order}, left, route(db, in, left))
	}
}

func byNothing(_ *database, _ *inbox.Inbox, left *countdown) envelope.Route {
	return consumer.On(counter, func(context.Context, envelope.Received[counted]) error {
		left.done()
		return nil
	})
}
