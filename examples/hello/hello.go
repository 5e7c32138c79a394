package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// ServerProvisionedV1 is what maskin promises the platform in version 1.
type ServerProvisionedV1 struct {
	Hostname string `json:"hostname"`
}

// ServerProvisioned says that a server is ready for use.
var ServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// What is declared, constant: maskin's events, and plattform's place to read them.
var (
	events  = topology.Events(subject.Maskin, topology.Limits{Replicas: 1})
	durable = topology.Consumer{
		Durable: "plattform__from_maskin", Stream: events,
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	maskin    = topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}
	plattform = topology.Set{
		Service: subject.Plattform, Consumers: []topology.Consumer{durable},
		Streams: []topology.Stream{
			events,
			topology.DeadLetters(subject.Plattform, topology.Limits{Replicas: 1}),
			topology.DeadLetterOps(subject.Plattform, topology.Limits{Replicas: 1}),
		},
	}
)

// provision commits state and event together, or neither.
func provision(ctx context.Context, pool *pgxpool.Pool, out *outbox.Outbox, id, hostname string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into server (id, hostname) values ($1, $2)`, id, hostname); err != nil {
			return err
		}
		return out.Enqueue(ctx, tx, ServerProvisioned.New(id, ServerProvisionedV1{Hostname: hostname}))
	})
}

// register runs once per message; tx also holds the row that says so.
func register(ctx context.Context, tx pgx.Tx, m envelope.Received[ServerProvisionedV1]) error {
	if m.Data.Hostname == "" {
		return envelope.Permanent(fmt.Errorf("server %s has no hostname", m.Envelope.Subject)) // a dead letter, now
	}
	_, err := tx.Exec(ctx, `insert into node (id, hostname) values ($1, $2)`, m.Envelope.Subject, m.Data.Hostname)
	return err // any other error: again, later
}

// serve is what maskin and plattform run; here in one process.
func serve(ctx context.Context, pool *pgxpool.Pool, js jetstream.JetStream, out *outbox.Outbox) error {
	if err := topology.Ensure(ctx, js, plattform); err != nil {
		return err
	}
	relay, err := outbox.NewRelay(out, pool, js, outbox.RelayConfig{})
	if err != nil {
		return err
	}
	dead, err := dlq.Open(ctx, js, subject.Plattform, dlq.Config{})
	if err != nil {
		return err
	}
	in, err := inbox.New(pool, "node_registry", inbox.Config{})
	if err != nil {
		return err
	}
	nodes, err := consumer.New(js, dead, consumer.Config{Consumer: durable, Store: in}, inbox.On(in, ServerProvisioned, register))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return relay.Run(ctx) })
	g.Go(func() error { return nodes.Run(ctx) })
	return g.Wait()
}
