package main

import (
	"context"
	"errors"
	"time"
)

// failoverRows measures how long messages wait when the leading relay process
// ends and another one stands by, both with default settings: from the signal
// to the moment at which a message that was committed afterwards is stored.
func failoverRows(ctx context.Context, b *bench) ([]Row, error) {
	db, err := b.database(ctx, "failover")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	var killed, stopped []float64
	for round := range min(b.rounds, b.sizes.slow) {
		k, err := b.failover(ctx, db, func(c *child) error { c.kill(); return nil })
		if err != nil {
			return nil, err
		}
		s, err := b.failover(ctx, db, (*child).stop)
		if err != nil {
			return nil, err
		}
		killed, stopped = append(killed, k), append(stopped, s)
		b.logf("  round %d: %.2f s after SIGKILL, %.2f s after a graceful stop", round+1, k, s)
	}
	return []Row{
		limitRow("failover/kill", "fail-over after SIGKILL, default settings", "s", 10, killed),
		limitRow("failover/stop", "fail-over after a graceful stop", "s", 0.5, stopped),
	}, nil
}

// failover starts two relays, ends the one that leads, and returns the seconds.
func (b *bench) failover(ctx context.Context, db *database, end func(*child) error) (seconds float64, err error) {
	if err := markPublished(ctx, db); err != nil {
		return 0, err
	}
	conn, err := b.broker(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.NATS().Close()
	arrived, err := watch(ctx, conn.JetStream())
	if err != nil {
		return 0, err
	}
	out, err := newOutbox()
	if err != nil {
		return 0, err
	}
	t := trial{db, out, arrived}
	leader, err := b.startChild(db)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(leader.awaitBegun(ctx), t.warmUp(ctx)); err != nil {
		leader.kill()
		return 0, err
	}
	standby, err := b.startChild(db)
	if err != nil {
		leader.kill()
		return 0, err
	}
	defer func() { err = errors.Join(err, standby.stop()) }()
	if err := pause(ctx, 2*time.Second); err != nil { // it has asked for the lease
		leader.kill()
		return 0, err
	}
	return t.wait(ctx, func() error { return end(leader) })
}

// wait ends the leader and returns how long a new message then takes.
func (t trial) wait(ctx context.Context, end func() error) (float64, error) {
	began := time.Now()
	if err := end(); err != nil {
		return 0, err
	}
	if _, err := t.commit(ctx, 1); err != nil {
		return 0, err
	}
	a, err := t.next(ctx)
	return a.at.Sub(began).Seconds(), err
}
