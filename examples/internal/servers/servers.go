// Package servers is what the examples have in common. It starts what one needs around
// it: a PostgreSQL that vanishes with the process, with the library's tables, and an
// embedded NATS server; and it is what their programs do alike.
package servers

import (
	"context"
	"errors"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/natsconn"
)

// Start starts a database and a broker, and connects to both. stop ends them; call it
// also after an error.
func Start(ctx context.Context) (pool *pgxpool.Pool, conn *natsconn.Conn, stop func(), err error) {
	var undo []func()
	stop = func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	pg, err := pgserver.Start(ctx, pgserver.Options{CachedInit: true})
	if err != nil {
		return nil, nil, stop, err
	}
	undo = append(undo, func() { _ = pg.Stop() })
	if pool, err = pgxpool.New(ctx, pg.URL("postgres")); err != nil {
		return nil, nil, stop, err
	}
	undo = append(undo, pool.Close)
	conn, closeBroker, err := Broker(ctx)
	undo = append(undo, closeBroker)
	return pool, conn, stop, errors.Join(err, migrate.Up(ctx, pool, migrate.Config{}))
}

// Broker starts a broker alone, and connects to it.
func Broker(ctx context.Context) (conn *natsconn.Conn, stop func(), err error) {
	dir, err := os.MkdirTemp("", "dataverket-example-")
	if err != nil {
		return nil, func() {}, err
	}
	stop = func() { _ = os.RemoveAll(dir) }
	broker, err := natsserver.Start(ctx, dir, natsserver.Options{})
	if err != nil {
		return nil, stop, err
	}
	stop = func() { broker.Stop(); _ = os.RemoveAll(dir) }
	conn, err = natsconn.Dial(ctx, natsconn.Config{URL: broker.URL(), FailFast: true, Options: []nats.Option{broker.Option()}})
	if err != nil {
		return nil, stop, err
	}
	return conn, func() { conn.NATS().Close(); broker.Stop(); _ = os.RemoveAll(dir) }, nil
}
