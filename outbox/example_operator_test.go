package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/outbox"
)

// Look at what is held, and let it go on once its cause is mended.
func ExampleReleaseParked() {
	release := func(ctx context.Context, pool *pgxpool.Pool) error {
		held, err := outbox.ListParked(ctx, pool, "", outbox.ParkedFilter{State: outbox.ParkedHeld})
		if err != nil {
			return err
		}
		for _, p := range held {
			fmt.Printf("%s, key %s: %s\n", p.Stream, p.Key, p.Cause)
			_, err := outbox.ReleaseParked(ctx, pool, "", p.Stream, p.Key, "operator:ola", "limit raised, DV-412")
			if _, ok := errors.AsType[*outbox.ParkedError](err); err != nil && !ok {
				return err // anything but: a colleague was there first
			}
		}
		return nil
	}
	_ = release
}

// Give a message up that nobody needs, and let the key go on behind it.
func ExampleDiscardParked() {
	discard := func(ctx context.Context, pool *pgxpool.Pool, seen outbox.Parked) error {
		_, err := outbox.DiscardParked(ctx, pool, "", seen.ID, "operator:ola", "nobody needs it, DV-412")
		return err // ErrHeadChanged: it is not the head any more, look again
	}
	_ = discard
}

// A consumer was restored from a backup of five o'clock: what it handled since is
// published again.
func ExampleRequestRewind() {
	rewind := func(ctx context.Context, pool *pgxpool.Pool, restored time.Time) error {
		request := outbox.RewindRequest{Stream: "DV_MASKIN_EVT", Since: restored, By: "operator:ola", Reason: "plattform restored, DV-7"}
		plan, err := outbox.PlanRewind(ctx, pool, "", request)
		if err != nil {
			return err
		}
		fmt.Printf("%d messages since %v\n", plan.Rows, plan.Oldest)
		_, err = outbox.RequestRewind(ctx, pool, "", request)
		return err
	}
	_ = rewind
}
