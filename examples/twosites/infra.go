package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/internal/twosites"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/topology"
)

// checkDatabase is where the facts are brought together at the end.
const checkDatabase = "kontroll"

// infra is what the service runs on at both sites, as an operator would provide it.
type infra struct {
	dir      string // everything that is on disk
	postgres *pgserver.Server
	link     *twosites.Pair
	limits   topology.Limits
	check    *pgxpool.Pool
}

// startInfra starts two sites of NATS and a database for each. After an error, too,
// close must be called.
func startInfra(ctx context.Context, nodes int) (*infra, error) {
	i := &infra{limits: topology.Limits{Replicas: nodes}}
	var err error
	if i.dir, err = os.MkdirTemp("", "dvmsg-twosites-"); err != nil {
		return i, err
	}
	if i.postgres, err = pgserver.Start(ctx, pgserver.Options{CachedInit: true}); err != nil {
		return i, err
	}
	if i.link, err = twosites.Start(ctx, i.dir, twosites.Options{A: osl1, B: trd1, Nodes: nodes, Flows: flows(i.limits)}); err != nil {
		return i, err
	}
	for _, name := range []string{osl1, trd1, checkDatabase} {
		if err := i.createDatabase(ctx, name); err != nil {
			return i, err
		}
	}
	if i.check, err = pgxpool.New(ctx, i.postgres.URL(checkDatabase)); err != nil {
		return i, err
	}
	return i, poll(ctx, 10*time.Millisecond, func() (bool, error) { return i.link.LinkUp(), nil })
}

func (i *infra) createDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, i.postgres.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize())
	return err
}

// sites are osl1 and trd1.
func (i *infra) sites() []*twosites.Site { return []*twosites.Site{i.link.A(), i.link.B()} }

// settings are what the service at a site is told.
func (i *infra) settings(site *twosites.Site) settings {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return settings{
		Site: site.Name(), Network: i.link.Network(), Limits: i.limits, DatabaseURL: i.postgres.URL(site.Name()), Logger: log,
		// The servers are ours and up: one that does not answer is to be seen at once.
		NATS: natsconn.Config{URL: site.Address(), Options: []nats.Option{site.User()}, FailFast: true, Logger: log},
	}
}

// close stops all servers and removes what they wrote.
func (i *infra) close() error {
	if i.check != nil {
		i.check.Close()
	}
	if i.link != nil {
		i.link.Stop()
	}
	var err error
	if i.postgres != nil {
		err = i.postgres.Stop()
	}
	return errors.Join(err, os.RemoveAll(i.dir))
}

// poll calls look until it says done, fails, or ctx ends.
func poll(ctx context.Context, every time.Duration, look func() (done bool, err error)) error {
	for {
		if done, err := look(); done || err != nil {
			return err
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}
