package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
)

// register enters a new server of either site. The handlers do not look at the
// revision that they are given: a broken order is to be seen and not to be covered up.
func register(ctx context.Context, tx pgx.Tx, e envelope.Received[maskinevents.ServerProvisionedV1]) error {
	_, err := tx.Exec(ctx, `insert into register (site, server_id, size, revision) values ($1, $2, $3, $4)`,
		e.Site, e.Envelope.Subject, e.Data.Size, e.Data.Revision)
	if err != nil {
		return err
	}
	return record(ctx, tx, event, e.Delivery, e.Data.Revision)
}

// resize changes the size of a server that is registered.
func resize(ctx context.Context, tx pgx.Tx, e envelope.Received[maskinevents.ServerResizedV1]) error {
	done, err := tx.Exec(ctx, `update register set size = $3, revision = $4 where site = $1 and server_id = $2`,
		e.Site, e.Envelope.Subject, e.Data.Size, e.Data.Revision)
	if err != nil {
		return err
	}
	if done.RowsAffected() == 0 {
		return envelope.Permanent(fmt.Errorf("maskin: resize %s of %s: it is not registered: look for a dead letter of the server", e.Envelope.Subject, e.Site))
	}
	return record(ctx, tx, event, e.Delivery, e.Data.Revision)
}

// What a row of changes and of the ledger is about.
const (
	event   = "event"
	command = "command"
)

// record writes the witness of an effect, in the transaction of the effect.
func record(ctx context.Context, tx pgx.Tx, cargo string, d *envelope.Delivery, revision int) error {
	_, err := tx.Exec(ctx, `insert into ledger (cargo, origin, message_id, server_id, revision) values ($1, $2, $3, $4, $5)`,
		cargo, d.Site, d.Envelope.ID, d.Envelope.Subject, revision)
	return err
}
