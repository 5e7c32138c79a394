// Command hello is the program of README.md: one event from a committed
// transaction to a handled message, on a throw-away PostgreSQL and an embedded
// NATS server.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/internal/servers"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/topology"
)

func main() { servers.Main("hello", run) }

// run starts the servers, provisions two servers (one of them without a
// hostname, hence a dead letter), and prints what became of them.
func run(ctx context.Context) error {
	pool, conn, stopServers, err := servers.Start(ctx)
	defer stopServers()
	if err != nil {
		return err
	}
	if err := prepare(ctx, pool, conn); err != nil {
		return err
	}
	out, err := outbox.New(maskin, outbox.Config{})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- serve(serving, pool, conn.JetStream(), out) }()

	request := envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1"))
	err = errors.Join(
		provision(request, pool, out, "server-1", "db1.oslo.example"),
		provision(request, pool, out, "server-2", ""),
	)
	if err == nil {
		err = report(ctx, pool, conn)
	}
	stop()
	return errors.Join(err, <-done)
}

// prepare creates the services' tables and maskin's stream.
func prepare(ctx context.Context, pool *pgxpool.Pool, conn *natsconn.Conn) error {
	if _, err := pool.Exec(ctx, "create table server (id text, hostname text); create table node (id text, hostname text)"); err != nil {
		return err
	}
	return topology.Ensure(ctx, conn.JetStream(), maskin)
}

// report waits until both messages came to their end.
func report(ctx context.Context, pool *pgxpool.Pool, conn *natsconn.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := servers.Await(ctx, func() (bool, error) { return nodeExists(ctx, pool) }); err != nil {
		return fmt.Errorf("the node was not registered: %w", err)
	}
	fmt.Println("node registered: server-1")
	var letter string
	if err := servers.Await(ctx, func() (found bool, err error) { letter, err = firstLetter(ctx, conn); return letter != "", err }); err != nil {
		return fmt.Errorf("the dead letter was not stored: %w", err)
	}
	fmt.Println("dead letter:", letter)
	return nil
}
