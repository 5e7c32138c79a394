package main

import (
	"context"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
)

// change gives a server of this site a size, and announces it: state and event commit
// together, or neither. The first change of a server provisions it.
func (s *service) change(ctx context.Context, id, size string) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// The row lock orders the changes of a server, and so their events.
		var revision int
		err := tx.QueryRow(ctx, `with changed as (
			insert into servers as s (id, size, revision) values ($1, $2, 1)
			on conflict (id) do update set size = excluded.size, revision = s.revision + 1
			returning id, revision)
			insert into changes (server_id, revision) select id, revision from changed returning revision`, id, size).Scan(&revision)
		if err != nil {
			return err
		}
		return s.out.Enqueue(ctx, tx, s.event(id, size, revision))
	})
}

// event is what the other services, and the other site, hear of a change.
func (s *service) event(id, size string, revision int) envelope.Draft {
	if revision == 1 {
		return maskinevents.ServerProvisioned.New(id, maskinevents.ServerProvisionedV1{
			Hostname: id + "-vm", Site: s.Site, Size: size, Revision: revision,
		}, envelope.Datacenter(s.Site))
	}
	return maskinevents.ServerResized.New(id, maskinevents.ServerResizedV1{Size: size, Revision: revision}, envelope.Datacenter(s.Site))
}
