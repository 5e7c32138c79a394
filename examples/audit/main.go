// Command audit keeps every event of every service in an append-only table: a
// consumer for each service, one inbox, and one handler for all types. audit.go is the
// service; this file starts a throw-away PostgreSQL and an embedded NATS server around
// it, and plays the other services.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/internal/servers"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func main() { servers.Main("audit", run) }

func run(ctx context.Context) error {
	pool, conn, stop, err := servers.Start(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, table); err != nil {
		return err
	}
	from, err := durables(subject.Maskin, subject.Objekt)
	if err != nil {
		return err
	}
	js := conn.JetStream()
	if err := declare(ctx, js, from); err != nil {
		return err
	}
	serving, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() { done <- serve(serving, pool, js, from) }()
	err = events(ctx, js)
	if err == nil {
		err = report(ctx, pool)
	}
	end()
	return errors.Join(err, <-done)
}

// declare creates the streams, each as its own service, and sentral's durables.
func declare(ctx context.Context, js jetstream.JetStream, from []topology.Consumer) error {
	one := topology.Limits{Replicas: 1}
	sentral := topology.Set{Service: subject.Sentral, Consumers: from, Streams: []topology.Stream{
		topology.DeadLetters(subject.Sentral, one), topology.DeadLetterOps(subject.Sentral, one),
	}}
	for _, durable := range from {
		sentral.Streams = append(sentral.Streams, durable.Stream)
		owner := topology.Set{Service: durable.Stream.Service, Streams: []topology.Stream{durable.Stream}}
		if err := topology.Ensure(ctx, js, owner); err != nil {
			return err
		}
	}
	return topology.Ensure(ctx, js, sentral)
}

type thing struct{}

// events publishes as the other services do, which have an outbox for it. The second
// event comes twice, as after a lost acknowledgement.
func events(ctx context.Context, js jetstream.JetStream) error {
	provisioned := envelope.MustEvent[thing](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1})
	deleted := envelope.MustEvent[thing](envelope.EventSpec{Service: subject.Objekt, Entity: "bucket", Verb: "deleted", Version: 1})
	ctx = envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1"))
	server, err := envelope.New(ctx, subject.Maskin, provisioned.New("server-1", thing{}))
	if err != nil {
		return err
	}
	bucket, err := envelope.New(ctx, subject.Objekt, deleted.New("bucket-1", thing{}))
	if err != nil {
		return err
	}
	for _, m := range []envelope.Message{server, bucket, bucket} {
		if err := servers.Publish(ctx, js, m); err != nil {
			return err
		}
	}
	return nil
}

// report waits for both events, prints them, and tries to cover a trace.
func report(ctx context.Context, pool *pgxpool.Pool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var lines string
	err := servers.Await(ctx, func() (bool, error) {
		const kept = `select coalesce(string_agg(type || ' ' || resource || ' by ' || actor || ' for ' || tenant, E'\n' order by type), ''), count(*) from audit`
		var n int
		err := pool.QueryRow(ctx, kept).Scan(&lines, &n)
		return n == 2, err
	})
	if err != nil {
		return err
	}
	fmt.Println(lines)
	_, err = pool.Exec(ctx, `delete from audit where actor = 'user:kari'`)
	fmt.Println(err)
	return nil
}
