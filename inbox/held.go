package inbox

import (
	"context"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// HeldKeys returns the keys of a lease that wait for an operator.
func (in *Inbox) HeldKeys(ctx context.Context, f envelope.Fence) ([]envelope.HeldKey, error) {
	rows, err := in.pool.Query(ctx, in.leases.held, f.Lease)
	if err != nil {
		return nil, in.explain("read the held keys of "+f.Lease, err)
	}
	held, err := pgx.CollectRows(rows, pgx.RowToStructByPos[envelope.HeldKey])
	if err != nil {
		return nil, in.explain("read the held keys of "+f.Lease, err)
	}
	return held, nil
}

// Hold notes that a key waits for an operator. It fails with envelope.ErrFenced
// where another instance has taken over.
func (in *Inbox) Hold(ctx context.Context, f envelope.Fence, k envelope.HeldKey) error {
	return in.fenced(ctx, "hold a key of ", in.leases.hold, f, k.Key, k.LetterID, k.Source, k.MessageID)
}

// Unhold notes that the operator has decided about a letter. It does nothing
// where no key waits for it.
func (in *Inbox) Unhold(ctx context.Context, f envelope.Fence, letterID string) error {
	if _, err := in.pool.Exec(ctx, in.leases.unhold, f.Lease, f.Term, letterID); err != nil {
		return in.explain("release the key of letter "+letterID, err)
	}
	return nil
}
