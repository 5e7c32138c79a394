package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/natsconn"
)

//go:embed sentral.sql
var sentralSQL string // constant: the tables of the service

//go:embed maskin.sql
var maskinSQL string // constant: the tables of the service

//go:embed plattform.sql
var plattformSQL string // constant: the tables of the service

// serviceSQL is constant: which databases there are, one per service.
var serviceSQL = map[string]string{"sentral": sentralSQL, "maskin": maskinSQL, "plattform": plattformSQL}

// checkDatabase is where the facts are brought together at the end.
const checkDatabase = "kontroll"

// infra is what the services run on, as an operator would provide it.
type infra struct {
	dir      string // everything that is on disk
	postgres *pgserver.Server
	nats     *natsserver.Server
	conn     *natsconn.Conn // the operator's own
	js       jetstream.JetStream
	pools    map[string]*pgxpool.Pool // by database
}

// startInfra starts both servers and makes the databases. After an error, too,
// close must be called.
func startInfra(ctx context.Context) (*infra, error) {
	i := &infra{pools: map[string]*pgxpool.Pool{}}
	var err error
	if i.dir, err = os.MkdirTemp("", "dvmsg-quickstart-"); err != nil {
		return i, err
	}
	if i.postgres, err = pgserver.Start(ctx, pgserver.Options{CachedInit: true}); err != nil {
		return i, err
	}
	if i.nats, err = natsserver.Start(ctx, i.dir, natsserver.Options{TCP: true}); err != nil {
		return i, err
	}
	// The server is ours and up: one that does not answer is to be seen at once.
	if i.conn, err = natsconn.Dial(ctx, natsconn.Config{URL: i.nats.URL(), FailFast: true, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		return i, err
	}
	i.js = i.conn.JetStream()
	for name, sql := range serviceSQL {
		if err := i.createDatabase(ctx, name); err != nil {
			return i, err
		}
		if err := migrateDatabase(ctx, i.pools[name], sql); err != nil {
			return i, fmt.Errorf("migrate database %s: %w", name, err)
		}
	}
	return i, i.createDatabase(ctx, checkDatabase)
}

// createDatabase makes an empty database and a pool on it.
func (i *infra) createDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, i.postgres.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize()); err != nil {
		return err
	}
	i.pools[name], err = pgxpool.New(ctx, i.postgres.URL(name))
	return err
}

// migrateDatabase makes the library's tables, which the service verifies at its
// start, and the service's own.
func migrateDatabase(ctx context.Context, pool *pgxpool.Pool, sql string) error {
	if err := migrate.Up(ctx, pool, migrate.Config{}); err != nil {
		return err
	}
	_, err := pool.Exec(ctx, sql)
	return err
}

// close stops both servers and removes what they wrote.
func (i *infra) close() error {
	for _, pool := range i.pools {
		pool.Close()
	}
	if i.conn != nil {
		_ = i.conn.Drain(context.Background()) // it only reads
	}
	if i.nats != nil {
		i.nats.Stop()
	}
	var err error
	if i.postgres != nil {
		err = i.postgres.Stop()
	}
	return errors.Join(err, os.RemoveAll(i.dir))
}
