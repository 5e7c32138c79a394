package main

import (
	"context"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
)

// change gives a server of this site a size, and announces it: state and event commit
// together, or neither. The first change of a server provisions it.
func (s *service) change(ctx context.Context, tx pgx.Tx, id, size string) error {
	revision, err := sent(ctx, tx, event, id, size)
	if err != nil {
		return err
	}
	if revision == 1 {
		return s.out.Enqueue(ctx, tx, maskinevents.ServerProvisioned.New(id, maskinevents.ServerProvisionedV1{
			Hostname: id + "-vm", Site: s.Site, Size: size, Revision: revision,
		}, envelope.Datacenter(s.Site)))
	}
	return s.out.Enqueue(ctx, tx, maskinevents.ServerResized.New(id,
		maskinevents.ServerResizedV1{Size: size, Revision: revision}, envelope.Datacenter(s.Site)))
}

// order asks another site to give one of its servers a size. The order commits here
// whether the link is up or not, and is carried out when the other site has fetched
// it.
func (s *service) order(ctx context.Context, tx pgx.Tx, site, id, size string) error {
	revision, err := sent(ctx, tx, command, id, size)
	if err != nil {
		return err
	}
	return s.out.Enqueue(ctx, tx, maskinevents.Resize.New(id,
		maskinevents.ResizeV1{Size: size, Revision: revision}, envelope.ToSite(site), envelope.Datacenter(site)))
}

// carryOut does what another site, or this one, has ordered.
func (s *service) carryOut(ctx context.Context, tx pgx.Tx, c envelope.Received[maskinevents.ResizeV1]) error {
	if err := record(ctx, tx, command, c.Delivery, c.Data.Revision); err != nil {
		return err
	}
	return s.change(ctx, tx, c.Envelope.Subject, c.Data.Size)
}

// sent counts the events or the commands about a server. The row lock puts those of
// one server into an order, which is that of their messages.
func sent(ctx context.Context, tx pgx.Tx, cargo, id, size string) (revision int, err error) {
	err = tx.QueryRow(ctx, `with now as (
		insert into servers as s (cargo, id, size, revision) values ($1, $2, $3, 1)
		on conflict (cargo, id) do update set size = excluded.size, revision = s.revision + 1
		returning cargo, id, revision)
		insert into changes (cargo, server_id, revision) select * from now returning revision`, cargo, id, size).Scan(&revision)
	return revision, err
}
