package inbox

import (
	"context"

	"codeberg.org/dataverket/messaging/envelope"
)

// The methods of this file make an Inbox a consumer.Store: the memory of how
// often a handler was started. A consumer calls them; a service does not.

// Open tells how many of the starts of d in a row never ended.
func (in *Inbox) Open(ctx context.Context, d *envelope.Delivery) (open int, err error) {
	m := messageOf(d)
	if err := in.pool.QueryRow(ctx, in.attempts.open, in.consumer, m.Source, m.ID).Scan(&open); err != nil {
		return 0, in.explain("look for the starts of message "+m.ID, err)
	}
	return open, nil
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
