package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

// roles is constant: what a process of this program can be, besides the
// supervisor.
var roles = map[string]func(context.Context, settings) error{
	"sentral":   runSentral,
	"maskin":    runMaskin,
	"plattform": runPlattform,
}

// settings are what a service gets from its environment.
type settings struct {
	// NATSURL and DatabaseURL are where its broker and its database are.
	NATSURL, DatabaseURL string
	// AckWait is how long the broker waits before it delivers a message again,
	// LeaseTTL how long a dead relay keeps its lease.
	AckWait, LeaseTTL time.Duration
	// Servers and Seed say what sentral is asked for.
	Servers int
	Seed    uint64
}

// environ is the environment that settingsFromEnv reads back.
func (s settings) environ() []string {
	return []string{
		"NATS_URL=" + s.NATSURL, "DATABASE_URL=" + s.DatabaseURL,
		"ACK_WAIT=" + s.AckWait.String(), "LEASE_TTL=" + s.LeaseTTL.String(),
		"SERVERS=" + strconv.Itoa(s.Servers), "SEED=" + strconv.FormatUint(s.Seed, 10),
	}
}

// settingsFromEnv reads the environment of a service.
func settingsFromEnv() (s settings, err error) {
	s.NATSURL, s.DatabaseURL = os.Getenv("NATS_URL"), os.Getenv("DATABASE_URL")
	if s.AckWait, err = time.ParseDuration(os.Getenv("ACK_WAIT")); err != nil {
		return s, fmt.Errorf("read ACK_WAIT: %w", err)
	}
	if s.LeaseTTL, err = time.ParseDuration(os.Getenv("LEASE_TTL")); err != nil {
		return s, fmt.Errorf("read LEASE_TTL: %w", err)
	}
	if s.Servers, err = strconv.Atoi(os.Getenv("SERVERS")); err != nil {
		return s, fmt.Errorf("read SERVERS: %w", err)
	}
	if s.Seed, err = strconv.ParseUint(os.Getenv("SEED"), 10, 64); err != nil {
		return s, fmt.Errorf("read SEED: %w", err)
	}
	return s, nil
}

// runRole is the main function of a service's process: it ends on SIGTERM, or
// when the supervisor is gone and its end of our standard input with it.
func runRole(role string) error {
	run, ok := roles[role]
	if !ok {
		return fmt.Errorf("there is no service %q", role)
	}
	cfg, err := settingsFromEnv()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		stop()
	}()
	return run(ctx, cfg)
}

// ends are a service's two connections, to its database and to the broker.
type ends struct {
	pool *pgxpool.Pool
	conn *natsconn.Conn
	js   jetstream.JetStream
}

// open connects a service. Its tables are the operator's matter here, so it only
// verifies them.
func open(ctx context.Context, service subject.Service, cfg settings) (*ends, error) {
	pool, err := pgxpool.New(ctx, cfg.DatabaseURL)
	if err != nil {
		return nil, err
	}
	if err := migrate.Verify(ctx, pool, migrate.Config{}); err != nil {
		pool.Close()
		return nil, err
	}
	conn, err := natsconn.Dial(ctx, natsconn.Config{URL: cfg.NATSURL, Service: service})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &ends{pool, conn, conn.JetStream()}, nil
}

// close gives both back. It comes last, so the service's ctx has ended.
func (e *ends) close() {
	_ = e.conn.Drain(context.Background()) // what it could not say is delivered again
	e.pool.Close()
}
