package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// plattformDurable is constant: how plattform reads maskin's events, one at a
// time for the order of a server's changes.
var plattformDurable = topology.Consumer{
	Durable: "plattform__from_maskin", Stream: maskinevents.Events(), Filter: subject.EventsOf(subject.Maskin),
	MaxAckPending: 1, Start: topology.StartFirst(),
}

// runPlattform is the whole service: events in, nothing out.
func runPlattform(ctx context.Context, cfg settings) error {
	end, err := open(ctx, subject.Plattform, cfg)
	if err != nil {
		return err
	}
	defer end.close()

	durable := plattformDurable
	durable.AckWait = cfg.AckWait
	set := topology.Set{
		Service: subject.Plattform,
		Streams: []topology.Stream{
			maskinevents.Events(), // maskin's: verified only
			topology.DeadLetters(subject.Plattform, topology.Limits{}), topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
		},
		Consumers: []topology.Consumer{durable},
	}
	if err := topology.Ensure(ctx, end.js, set); err != nil {
		return err
	}
	in, err := inbox.New(end.pool, durable.Durable, inbox.Config{})
	if err != nil {
		return err
	}
	dead, err := dlq.Open(ctx, end.js, subject.Plattform, dlq.Config{})
	if err != nil {
		return err
	}
	events, err := consumer.New(end.js, dead, consumer.Config{Consumer: durable, Store: in},
		inbox.On(in, maskinevents.ServerProvisioned, register),
		inbox.On(in, maskinevents.ServerResized, adjust),
	)
	if err != nil {
		return err
	}
	return events.Run(ctx)
}

// register adds the node of a new server.
func register(ctx context.Context, tx pgx.Tx, e envelope.Received[maskinevents.ServerProvisionedV1]) error {
	_, err := tx.Exec(ctx, `insert into nodes (server_id, hostname, site, size, revision) values ($1, $2, $3, $4, $5)`,
		e.Envelope.Subject, e.Data.Hostname, e.Data.Site, e.Data.Size, e.Data.Revision)
	if err != nil {
		return err
	}
	return record(ctx, tx, e.Delivery, e.Data.Revision)
}

// adjust changes the size of a node.
func adjust(ctx context.Context, tx pgx.Tx, e envelope.Received[maskinevents.ServerResizedV1]) error {
	done, err := tx.Exec(ctx, `update nodes set size = $2, revision = $3 where server_id = $1`,
		e.Envelope.Subject, e.Data.Size, e.Data.Revision)
	if err != nil {
		return err
	}
	if done.RowsAffected() == 0 {
		return envelope.Permanent(fmt.Errorf("plattform: resize node of %s: there is none: look for a dead letter of the server", e.Envelope.Subject))
	}
	return record(ctx, tx, e.Delivery, e.Data.Revision)
}

// record writes the witness of an effect, in the transaction of the effect. Both
// services have the table; see maskin.sql.
func record(ctx context.Context, tx pgx.Tx, d *envelope.Delivery, revision int) error {
	_, err := tx.Exec(ctx, `insert into ledger (message_id, server_id, revision, attempt) values ($1, $2, $3, $4)`,
		d.Envelope.ID, d.Envelope.Subject, revision, d.Attempt)
	return err
}
