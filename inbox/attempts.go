package inbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// The methods of this file make an Inbox a consumer.Store: the memory of how
// often a handler was started. A consumer calls them; a service does not.

// Open tells how many of the starts of d in a row never ended. If there are any
// and a copy of d is being handled at this moment, that is an error: the copy is
// slow, or cut off from the broker, and no start is known to have crashed.
func (in *Inbox) Open(ctx context.Context, d *envelope.Delivery) (open int, err error) {
	k, err := in.key(messageOf(d))
	if err != nil {
		return 0, err
	}
	if err := in.pool.QueryRow(ctx, in.attempts.open, in.consumer, k.Source, k.ID).Scan(&open); err != nil {
		return 0, in.explain("look for the starts of message "+k.ID, err)
	}
	if open > 0 {
		err = in.claimable(ctx, k)
	}
	return open, err
}

// claimable fails if the claim of k would have to wait for a copy that is being
// handled. It claims and takes that back.
func (in *Inbox) claimable(ctx context.Context, k key) error {
	var batch pgx.Batch
	batch.BeginTx(pgx.TxOptions{})
	batch.Queue(hurriedText)
	claim, args := in.claim(k)
	batch.Queue(claim, args...)
	results := in.pool.SendBatch(ctx, &batch)
	tx, err := results.Tx(), results.Close()
	in.rollback(ctx, tx)
	switch {
	case err == nil:
		return nil
	case code(err) == lockNotAvailable:
		return fmt.Errorf("inbox: consumer %s: message %s of %s is being handled at this moment: %w", in.consumer, k.ID, k.Source, err)
	}
	return in.explain("look for a copy of message "+k.ID, err)
}

// Begin commits that a handler is about to start d, which came before, and
// returns what is known of its starts. A message that was handled meanwhile, or
// parked, is Handled, and no start is counted.
func (in *Inbox) Begin(ctx context.Context, d *envelope.Delivery) (envelope.Starts, error) {
	var s envelope.Starts
	k, err := in.key(messageOf(d))
	if err != nil {
		return s, err
	}
	err = in.pool.QueryRow(ctx, k.sql.begin, in.consumer, k.Source, k.id, k.LetterID != "", k.LetterID, k.claim).Scan(&s.Count, &s.Open, &s.Handled)
	if err != nil {
		return envelope.Starts{}, in.explain("record the start of message "+k.ID, err)
	}
	return s, nil
}

// End records that the latest start of d ended with a verdict, and that it will
// be tried again.
func (in *Inbox) End(ctx context.Context, d *envelope.Delivery) error {
	return in.settleAttempt(ctx, d, "record the end of an attempt of message ", in.attempts.end)
}

// Undo takes the latest start of d back: a shutdown ended it, and it is to blame
// for nothing.
func (in *Inbox) Undo(ctx context.Context, d *envelope.Delivery) error {
	return in.settleAttempt(ctx, d, "take back the start of message ", in.attempts.undo)
}

// Forget drops what is known of the starts of d: it is done.
func (in *Inbox) Forget(ctx context.Context, d *envelope.Delivery) error {
	return in.settleAttempt(ctx, d, "forget the starts of message ", in.attempts.forget)
}

func (in *Inbox) settleAttempt(ctx context.Context, d *envelope.Delivery, what, sql string) error {
	m := messageOf(d)
	if _, err := in.pool.Exec(ctx, sql, in.consumer, m.Source, m.ID); err != nil {
		return in.explain(what+m.ID, err)
	}
	return nil
}
