package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// table is append-only for everybody but the role that owns it; in production the
// service has another role, with INSERT and SELECT alone. The envelope is json and
// not jsonb, which would change it.
const table = `
create table audit (
  source text, id uuid, type text not null, resource text not null, tenant text, actor text,
  correlation_id text not null, made_at timestamptz not null, envelope json not null,
  kept_at timestamptz not null default clock_timestamp(),
  primary key (source, id));
create function keep() returns trigger language plpgsql as $$ begin raise 'the audit is append-only'; end $$;
create trigger keep before update or delete or truncate on audit execute function keep();`

// keep writes one event of any type, once: tx also holds the inbox row. What wrote
// the audit twice, or not at all, would be no audit.
func keep(ctx context.Context, tx pgx.Tx, d *envelope.Delivery) error {
	e := d.Envelope
	raw, err := e.Encode()
	if err != nil {
		return envelope.Permanent(err)
	}
	_, err = tx.Exec(ctx, `
insert into audit (source, id, type, resource, tenant, actor, correlation_id, made_at, envelope)
values ($1, $2, $3, $4, nullif($5, ''), nullif($6, ''), $7, $8, $9)`,
		e.Source.String(), e.ID, e.Type, e.Subject, e.TenantID, string(e.Actor), e.CorrelationID, e.Time, string(raw))
	return err
}

// durables are sentral's places to read the events of these services, each from its
// beginning.
func durables(services ...subject.Service) (all []topology.Consumer, err error) {
	for _, s := range services {
		name, err := topology.DurableFrom(subject.Sentral, s, "audit")
		if err != nil {
			return nil, err
		}
		all = append(all, topology.Consumer{
			Durable: name, Stream: topology.Events(s, topology.Limits{Replicas: 1}),
			Filter: subject.EventsOf(s), Start: topology.StartFirst(),
		})
	}
	return all, nil
}

// serve keeps what the durables bring, until ctx ends.
func serve(ctx context.Context, pool *pgxpool.Pool, js jetstream.JetStream, from []topology.Consumer) error {
	dead, err := dlq.Open(ctx, js, subject.Sentral, dlq.Config{})
	if err != nil {
		return err
	}
	in, err := inbox.New(pool, "sentral__audit", inbox.Config{})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, durable := range from {
		c, err := consumer.New(js, dead, consumer.Config{Consumer: durable, Store: in}, inbox.OnAny(in, keep))
		if err != nil {
			return err
		}
		g.Go(func() error { return c.Run(ctx) })
	}
	return g.Wait()
}
