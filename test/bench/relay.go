package main

import (
	"context"
	"errors"
	"time"

	"codeberg.org/dataverket/messaging/outbox"
)

// relayRows measures how fast a backlog is published: by the relay, by the
// client alone, by Watermill's forwarder and by the usual poller.
func relayRows(ctx context.Context, b *bench) ([]Row, error) {
	db, err := b.database(ctx, "relay")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if err := fill(ctx, db, b.sizes.backlog); err != nil {
		return nil, err
	}
	if err := fillWatermill(ctx, db, min(b.sizes.backlog, watermillBacklog)); err != nil {
		return nil, err
	}
	if err := settle(ctx, db); err != nil {
		return nil, err
	}
	f, err := b.interleave(ctx,
		side{"relay", func(ctx context.Context) (float64, error) { return b.redrain(ctx, db) }},
		side{"PublishAsync, 256 pending", b.rawPublish(256)},
		side{"PublishAsync, 4,000 pending", b.rawPublish(4_000)},
		side{"PublishAsync, 16,000 pending", b.rawPublish(16_000)},
		side{"Watermill, batches of 1,000", b.watermill(db, 1_000)},
		side{"Watermill, batches of 10,000", b.watermill(db, 10_000)},
		side{"SKIP LOCKED poller", b.skipLocked(db)},
		side{"reading alone", b.rawRead(db)},
	)
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("relay/raw", "relay throughput / raw PublishAsync", "msg/s", 0.8, f[0], best(f[1:4]...)),
		ratioRow("relay/watermill", "relay throughput / Watermill forwarder", "msg/s", 8, f[0], best(f[4:6]...)),
		ratioRow("relay/skiplocked", "relay throughput / SKIP LOCKED poller", "msg/s", 0, f[0], f[6]),
		ratioRow("relay/reading", "relay throughput / reading alone", "msg/s", 0, f[0], f[7]),
	}, nil
}

// redrain publishes the whole table once more, into a new stream.
func (b *bench) redrain(ctx context.Context, db *database) (float64, error) {
	if err := markUnpublished(ctx, db); err != nil {
		return 0, err
	}
	return b.drain(ctx, db, b.sizes.backlog)
}

// drain starts a relay on a backlog of n messages and returns messages per
// second, its start included.
func (b *bench) drain(ctx context.Context, db *database, n int) (float64, error) {
	return b.drainWith(ctx, db, n, outbox.RelayConfig{})
}

// drainWith is drain with other settings.
func (b *bench) drainWith(ctx context.Context, db *database, n int, cfg outbox.RelayConfig) (float64, error) {
	conn, err := b.broker(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.NATS().Close()
	began := time.Now()
	stop, err := startRelayWith(ctx, db, conn, cfg)
	if err != nil {
		return 0, err
	}
	err = awaitStored(ctx, conn.JetStream(), n)
	elapsed := time.Since(began)
	return float64(n) / elapsed.Seconds(), errors.Join(err, stop())
}
