package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
)

// servers handles maskin's events: a server becomes a node, and changes its size.
type servers struct{ out *outbox.Outbox }

// routes binds the handlers to the types that they handle.
func (s servers) routes(in *inbox.Inbox) []envelope.Route {
	return []envelope.Route{
		inbox.On(in, maskinevents.ServerProvisioned, s.register),
		inbox.On(in, maskinevents.ServerResized, s.resize),
	}
}

// register makes a node of a server and says so. Both commit with the inbox's row,
// so a message that comes again does nothing.
func (s servers) register(ctx context.Context, tx pgx.Tx, m envelope.Received[maskinevents.ServerProvisionedV1]) error {
	id := m.Envelope.Subject
	if m.Data.Hostname == "" {
		return envelope.Permanent(fmt.Errorf("server %s has no hostname", id)) // no retry gives it one
	}
	_, err := tx.Exec(ctx, `insert into node (id, tenant, hostname, size, revision) values ($1, $2, $3, $4, $5)`,
		id, m.Envelope.TenantID, m.Data.Hostname, m.Data.Size, m.Data.Revision)
	if err != nil {
		return err // again, later
	}
	return s.out.Enqueue(ctx, tx, plattformapi.NodeRegistered.New(id, plattformapi.NodeRegisteredV1{
		Hostname: m.Data.Hostname, Site: m.Data.Site,
	}))
}

// resize changes a node's size, unless a newer change was here first: a retry or
// another replica may have let it pass.
func (s servers) resize(ctx context.Context, tx pgx.Tx, m envelope.Received[maskinevents.ServerResizedV1]) error {
	id := m.Envelope.Subject
	if _, err := lockNode(ctx, tx, id); err != nil {
		return fmt.Errorf("resize node of server %s: %w", id, err) // it may come yet: again, later
	}
	_, err := tx.Exec(ctx, `update node set size = $2, revision = $3 where id = $1 and revision < $3`,
		id, m.Data.Size, m.Data.Revision)
	return err
}
