package main

import (
	"context"
	"errors"
	"time"
)

// memoryRows measures the peak resident memory of a process that is a relay and
// nothing else while it publishes a large backlog.
func memoryRows(ctx context.Context, b *bench) ([]Row, error) {
	db, err := b.database(ctx, "memory")
	if err != nil {
		return nil, err
	}
	defer db.drop()
	if err := fill(ctx, db, b.sizes.memory); err != nil {
		return nil, err
	}
	if err := settle(ctx, db); err != nil {
		return nil, err
	}
	var peaks []float64
	for round := range min(b.rounds, b.sizes.slow) {
		peak, err := b.peakOfDrain(ctx, db)
		if err != nil {
			return nil, err
		}
		peaks = append(peaks, peak)
		b.logf("  round %d: %.0f MB", round+1, peak)
	}
	return []Row{limitRow("memory/peak", "peak resident memory of a relay process, draining "+thousands(int64(b.sizes.memory)), "MB", 150, peaks)}, nil
}

func (b *bench) peakOfDrain(ctx context.Context, db *database) (float64, error) {
	if err := markUnpublished(ctx, db); err != nil {
		return 0, err
	}
	conn, err := b.broker(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.NATS().Close()
	c, err := b.startChild(db)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := awaitStored(ctx, conn.JetStream(), b.sizes.memory); err != nil {
		c.kill()
		return 0, err
	}
	b.logf("  %.0f msg/s in a process of its own", float64(b.sizes.memory)/time.Since(began).Seconds())
	u, err := c.usage()
	return float64(u.PeakBytes) / 1e6, errors.Join(err, c.stop())
}
