package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// idleRows measures what a relay costs while nothing happens.
func idleRows(ctx context.Context, b *bench) ([]Row, error) {
	var statements, cpu []float64
	err := b.eachSlowRound(ctx, "idle", func(c *child, _ *database) error {
		u, err := c.during(ctx, b.sizes.quiet)
		statements = append(statements, perSecond(u.Statements, b.sizes.quiet))
		cpu = append(cpu, 100*u.CPU.Seconds()/b.sizes.quiet.Seconds())
		b.logf("  %d statements in %v, %d of them pings of the pool", u.Statements, b.sizes.quiet, u.Pings)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []Row{
		limitRow("idle/statements", "idle relay: statements", "1/s", 2, statements),
		limitRow("idle/cpu", "idle relay: processor time of one core", "%", 1, cpu),
	}, nil
}

// outageRows measures how often a relay that has work knocks at a broker, and
// at a database, that is not there.
func outageRows(ctx context.Context, b *bench) ([]Row, error) {
	var toBroker, toDatabase []float64
	err := b.eachSlowRound(ctx, "outage", func(c *child, db *database) error {
		u, err := b.brokerDown(ctx, c, db)
		if err != nil {
			return err
		}
		toBroker = append(toBroker, perSecond(u.BrokerDials, b.sizes.quiet))
		u, err = b.databaseDown(ctx, c)
		toDatabase = append(toDatabase, perSecond(u.DatabaseDials, b.sizes.quiet))
		return err
	})
	if err != nil {
		return nil, err
	}
	return []Row{
		limitRow("outage/broker", "broker down: attempts", "1/s", 5, toBroker),
		limitRow("outage/database", "database down: attempts", "1/s", 5, toDatabase),
	}, nil
}

// eachSlowRound runs do once per round beside a relay process that leads and has
// published.
func (b *bench) eachSlowRound(ctx context.Context, name string, do func(*child, *database) error) error {
	for range min(b.rounds, b.sizes.slow) {
		db, err := b.database(ctx, name)
		if err != nil {
			return err
		}
		err = b.besideChild(ctx, db, func(c *child) error { return do(c, db) })
		db.drop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) besideChild(ctx context.Context, db *database, do func(*child) error) error {
	conn, err := b.broker(ctx)
	if err != nil {
		return err
	}
	defer conn.NATS().Close()
	c, err := b.startChild(db)
	if err != nil {
		return err
	}
	err = errors.Join(c.awaitBegun(ctx), enqueueOne(ctx, db))
	if err == nil {
		err = awaitStored(ctx, conn.JetStream(), 1)
	}
	if err == nil {
		err = pause(ctx, time.Second) // it has come to rest
	}
	if err == nil {
		err = do(c)
	}
	return errors.Join(err, c.stop())
}

// brokerDown stops the broker, gives the relay something to publish, and counts
// after the first second.
func (b *bench) brokerDown(ctx context.Context, c *child, db *database) (usage, error) {
	b.nats.Stop()
	err := errors.Join(enqueueOne(ctx, db), pause(ctx, time.Second))
	u, countErr := c.during(ctx, b.sizes.quiet)
	b.logf("  broker down: %d dials, %d statements in %v", u.BrokerDials, u.Statements, b.sizes.quiet)
	return u, errors.Join(err, countErr, b.nats.Restart(ctx))
}

func (b *bench) databaseDown(ctx context.Context, c *child) (usage, error) {
	if err := b.pg.Kill9(); err != nil {
		return usage{}, err
	}
	err := pause(ctx, time.Second)
	u, countErr := c.during(ctx, b.sizes.quiet)
	b.logf("  database down: %d dials in %v", u.DatabaseDials, b.sizes.quiet)
	return u, errors.Join(err, countErr, b.pg.Restart(ctx))
}

func enqueueOne(ctx context.Context, db *database) error {
	out, err := newOutbox()
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return out.Enqueue(origin(ctx), tx, draft("key-1", 1)) })
}

func perSecond(n int64, d time.Duration) float64 { return float64(n) / d.Seconds() }
