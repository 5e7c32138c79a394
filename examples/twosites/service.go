package main

import (
	"context"
	_ "embed"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

//go:embed service.sql
var serviceSQL string // constant: the tables of the service

// handlers is how many messages of one durable are handled at once.
const handlers = 8

// settings are what maskin is told about the site that it runs at.
type settings struct {
	Site        string // as in Network
	Network     topology.Network
	Limits      topology.Limits // of its streams
	DatabaseURL string
	NATS        natsconn.Config // of this site's servers, and of no other's
	Logger      *slog.Logger
}

// service is maskin at one site. It knows of the other one by its declaration alone,
// and never connects to it.
type service struct {
	settings
	set       topology.Set
	pool      *pgxpool.Pool
	conn      *natsconn.Conn
	out       *outbox.Outbox
	relay     *outbox.Relay
	consumers []*consumer.Consumer // one for each durable
	watcher   *sites.Watcher       // of what the other site sends
}

// open connects, brings tables and streams up to date and makes the parts. The
// caller closes what it returns, after an error too.
func open(ctx context.Context, cfg settings) (*service, error) {
	s := &service{settings: cfg, set: declared(cfg.Network, cfg.Site, cfg.Limits)}
	pool, err := pgxpool.ParseConfig(cfg.DatabaseURL)
	if err != nil {
		return s, err
	}
	pool.MaxConns = 50 // handlers, two more for the lease of each consumer, the relay, and who makes changes
	if s.pool, err = pgxpool.NewWithConfig(ctx, pool); err != nil {
		return s, err
	}
	if err := migrate.Up(ctx, s.pool, migrate.Config{}); err != nil {
		return s, err
	}
	if _, err := s.pool.Exec(ctx, serviceSQL); err != nil {
		return s, err
	}
	if s.conn, err = natsconn.Dial(ctx, cfg.NATS); err != nil {
		return s, err
	}
	if err := topology.Ensure(ctx, s.conn.JetStream(), s.set); err != nil {
		return s, err
	}
	return s, s.makeParts(ctx)
}

// makeParts constructs what runs.
func (s *service) makeParts(ctx context.Context) (err error) {
	js := s.conn.JetStream()
	// The set says which site this is: the relay marks what it publishes with it, and
	// refuses the acknowledgement of another.
	if s.out, err = outbox.New(s.set, outbox.Config{}); err != nil {
		return err
	}
	if s.relay, err = outbox.NewRelay(s.out, s.pool, js, outbox.RelayConfig{Logger: s.Logger}); err != nil {
		return err
	}
	dead, err := dlq.Open(ctx, js, subject.Maskin, dlq.Config{Logger: s.Logger})
	if err != nil {
		return err
	}
	// One inbox for all durables: it remembers messages, whichever way they came.
	in, err := inbox.New(s.pool, "maskin", inbox.Config{})
	if err != nil {
		return err
	}
	routes := []envelope.Route{
		inbox.On(in, maskinevents.ServerProvisioned, register),
		inbox.On(in, maskinevents.ServerResized, resize),
		inbox.On(in, maskinevents.Resize, s.carryOut),
	}
	for _, durable := range s.set.Consumers {
		c, err := consumer.New(js, dead, consumer.Config{
			Consumer: durable, Site: s.Site, Store: in, Order: &consumer.Order{}, Concurrency: handlers, Logger: s.Logger,
		}, routes...)
		if err != nil {
			return err
		}
		s.consumers = append(s.consumers, c)
	}
	s.watcher, err = sites.New(s.conn, s.set, sites.Config{Logger: s.Logger})
	return err
}

// run is the service, until ctx ends.
func (s *service) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.relay.Run(ctx) })
	for _, c := range s.consumers {
		g.Go(func() error { return c.Run(ctx) })
	}
	g.Go(func() error { return s.watcher.Run(ctx) })
	return g.Wait()
}

// ready is what the readiness probe answers with. That the link is down is no part of
// it, since a site works alone; health.Info("sites", s.watcher) tells of it.
func (s *service) ready() error {
	err := s.relay.Ready()
	for _, c := range s.consumers {
		err = errors.Join(err, c.Ready())
	}
	return err
}

// close ends the connections, when nothing runs any more.
func (s *service) close() {
	if s.conn != nil {
		_ = s.conn.Drain(context.Background()) // what it could not say is delivered again
	}
	if s.pool != nil {
		s.pool.Close()
	}
}
