package main

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

func nodeExists(ctx context.Context, pool *pgxpool.Pool) (exists bool, err error) {
	err = pool.QueryRow(ctx, "select exists (select from node where id = 'server-1')").Scan(&exists)
	return exists, err
}

// firstLetter returns the cause of the first dead letter, "" while there is none.
func firstLetter(ctx context.Context, conn *natsconn.Conn) (string, error) {
	dead, err := dlq.Open(ctx, conn.JetStream(), subject.Plattform, dlq.Config{})
	if err != nil {
		return "", err
	}
	for letter, err := range dead.List(ctx, dlq.Filter{}) {
		return letter.Error, err
	}
	return "", nil
}
