package inbox_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

func ExampleNew() {
	_, err := inbox.New(nil, "Plattform Servers", inbox.Config{})
	fmt.Println(err)
	// Output:
	// inbox: pool: is nil; pass the service's pgxpool.Pool
	// inbox: consumer: "Plattform Servers" is no name; use [a-z][a-z0-9_]*, at most 64 bytes, such as the durable's
}

func ExampleOn() {
	pool, err := pgxpool.New(context.Background(), "postgres://localhost/plattform") // connects later
	if err != nil {
		return
	}
	defer pool.Close()
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	if err != nil {
		return
	}
	route := inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m envelope.Received[serverV1]) error {
		if m.Data.Hostname == "" {
			return envelope.Permanent(errors.New("no hostname")) // a dead letter now
		}
		_, err := tx.Exec(ctx, `insert into node (server_id, host) values ($1, $2)`, m.Envelope.Subject, m.Data.Hostname)
		return err
	})
	fmt.Println(route.Type, route.Version) // pass it to consumer.New
	// Output: maskin.server.provisioned 1
}
