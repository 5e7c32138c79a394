package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// situation is a database in the state that a row is about.
type situation struct {
	db   *database
	name string
	hard bool // a writing transaction and a snapshot are held open
}

// retainedRows measures relay and writers in the worst ordinary situation, many
// published rows that are retained, a writing transaction open for the whole
// run and a held snapshot, beside an empty and quiet database.
func retainedRows(ctx context.Context, b *bench) ([]Row, error) {
	hard := situation{name: "retained", hard: true}
	easy := situation{name: "quiet"}
	for _, s := range []*situation{&hard, &easy} {
		db, err := b.database(ctx, s.name)
		if err != nil {
			return nil, err
		}
		defer db.drop()
		if err := makeAggregates(ctx, db); err != nil {
			return nil, err
		}
		s.db = db
	}
	if err := fill(ctx, hard.db, b.sizes.retained); err != nil {
		return nil, err
	}
	if err := settle(ctx, hard.db); err != nil {
		return nil, err
	}
	f, err := b.interleave(ctx,
		side{"relay, retained rows", b.drainIn(hard)},
		side{"relay, quiet database", b.drainIn(easy)},
		side{"writers, retained rows", b.writeIn(hard)},
		side{"writers, quiet database", b.writeIn(easy)},
	)
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("retained/relay", "relay with retained rows, open transaction, held snapshot / without", "msg/s", 0.9, f[0], f[1]),
		ratioRow("retained/writers", "writers in that situation / without, relay draining", "tx/s", 0.9, f[2], f[3]),
	}, nil
}

// enter brings the situation about for one measurement; leave ends it.
func (s situation) enter(ctx context.Context) (leave func() error, err error) {
	if !s.hard {
		if _, err := s.db.Exec(ctx, "truncate messaging.outbox_events"); err != nil {
			return nil, err
		}
	}
	if err := markPublished(ctx, s.db); err != nil {
		return nil, err
	}
	if !s.hard {
		return func() error { return nil }, nil
	}
	return hold(ctx, s.db)
}

// hold opens a transaction that has changed an aggregate no writer uses and has
// enqueued a message, and another one with a snapshot.
func hold(ctx context.Context, db *database) (release func() error, err error) {
	writing, err := db.Begin(ctx)
	if err != nil {
		return nil, err
	}
	reading, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return nil, errors.Join(err, writing.Rollback(ctx))
	}
	release = func() error { return errors.Join(writing.Rollback(ctx), reading.Rollback(ctx)) }
	out, err := newOutbox()
	if err == nil {
		_, err = writing.Exec(ctx, "update aggregate set n = n + 1 where id = $1", aggregates)
	}
	if err == nil {
		err = out.Enqueue(origin(ctx), writing, draft("held", 0))
	}
	if err == nil {
		_, err = reading.Exec(ctx, "select count(*) from aggregate")
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// drainIn adds a backlog in the situation and measures how fast it is published.
func (b *bench) drainIn(s situation) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		leave, err := s.enter(ctx)
		if err != nil {
			return 0, err
		}
		if err := fill(ctx, s.db, b.sizes.backlog); err != nil {
			return 0, errors.Join(err, leave())
		}
		if _, err := s.db.Exec(ctx, "checkpoint"); err != nil {
			return 0, errors.Join(err, leave())
		}
		rate, err := b.drain(ctx, s.db, b.sizes.backlog)
		return rate, errors.Join(err, leave())
	}
}

// writeIn measures writers in the situation while a relay publishes what they
// write.
func (b *bench) writeIn(s situation) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		leave, err := s.enter(ctx)
		if err != nil {
			return 0, err
		}
		rate, err := b.writeWithRelay(ctx, s.db)
		return rate, errors.Join(err, leave())
	}
}

func (b *bench) writeWithRelay(ctx context.Context, db *database) (float64, error) {
	enqueue, err := enqueueWriter()
	if err != nil {
		return 0, err
	}
	conn, err := b.broker(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.NATS().Close()
	stop, err := startRelay(ctx, db, conn)
	if err != nil {
		return 0, err
	}
	rate, err := writersTPS(ctx, db, b.sizes.window, enqueue)
	n, countErr := stored(ctx, conn.JetStream())
	if countErr == nil && n == 0 {
		countErr = errors.New("the relay published nothing meanwhile")
	}
	return rate, errors.Join(err, countErr, stop())
}
