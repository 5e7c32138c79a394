package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// servers are the two throw-away servers of a run.
type servers struct {
	pg   *pgserver.Server
	nats *natsserver.Server
	dir  string // of the streams
}

// startServers starts PostgreSQL as production runs it, forcing every commit to
// disk, and NATS on TCP with file storage. Autovacuum is off, so that rounds are
// alike; what was loaded is vacuumed before it is measured.
func startServers(ctx context.Context) (*servers, error) {
	pg, err := pgserver.Start(ctx, pgserver.Options{Durable: true, CachedInit: true, Settings: map[string]string{
		"shared_buffers":     "512MB",
		"max_wal_size":       "8GB",
		"checkpoint_timeout": "1h",
		"autovacuum":         "off",
	}})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-nats-")
	if err != nil {
		return nil, errors.Join(err, pg.Stop())
	}
	s := &servers{pg: pg, dir: dir}
	s.nats, err = natsserver.Start(ctx, filepath.Join(dir, "store"), natsserver.Options{TCP: true})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *servers) close() {
	if s.nats != nil {
		s.nats.Stop()
	}
	_ = os.RemoveAll(s.dir)
	_ = s.pg.Stop()
}

// database is a database of one group of rows, with the library's tables.
type database struct {
	*pgxpool.Pool
	url  string
	drop func()
}

func (s *servers) database(ctx context.Context, name string) (*database, error) {
	if err := s.maintain(ctx, "create database "+name); err != nil {
		return nil, err
	}
	url := s.pg.URL(name)
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 48 // 32 writers, a relay, and what is held open
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	d := &database{Pool: pool, url: url, drop: func() {
		pool.Close()
		_ = s.maintain(context.WithoutCancel(ctx), "drop database if exists "+name+" with (force)")
	}}
	if err := migrate.Up(ctx, pool, migrate.Config{}); err != nil {
		d.drop()
		return nil, err
	}
	return d, nil
}

// maintain runs one statement outside the databases that are measured.
func (s *servers) maintain(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.pg.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// stream is where all messages of the benchmark go: one replica, file storage,
// as the library declares it.
func stream() topology.Stream { return topology.Events(subject.Maskin, topology.Limits{}) }

func set() topology.Set {
	return topology.Set{Service: subject.Maskin, Streams: []topology.Stream{stream()}}
}

// freshStream makes the stream anew: the server would take the messages of the
// round before for duplicates.
func freshStream(ctx context.Context, js jetstream.JetStream) error {
	if err := js.DeleteStream(ctx, stream().Name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	return topology.Ensure(ctx, js, set())
}

// broker opens a connection of its own and makes the stream anew.
func (s *servers) broker(ctx context.Context) (*natsconn.Conn, error) {
	conn, err := natsconn.Dial(ctx, natsconn.Config{URL: s.nats.URL(), FailFast: true, Logger: silent()})
	if err != nil {
		return nil, err
	}
	if err := freshStream(ctx, conn.JetStream()); err != nil {
		conn.NATS().Close()
		return nil, err
	}
	return conn, nil
}

// stored is the number of messages in the stream.
func stored(ctx context.Context, js jetstream.JetStream) (uint64, error) {
	s, err := js.Stream(ctx, stream().Name)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.Msgs, nil
}

// awaitStored returns when the stream holds n messages.
func awaitStored(ctx context.Context, js jetstream.JetStream, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("the messages did not arrive within 10 minutes"))
	defer cancel()
	for {
		got, err := stored(ctx, js)
		switch {
		case err != nil:
			return fmt.Errorf("wait for %d messages: %w", n, err)
		case got >= uint64(n):
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for %d messages, %d are there: %w", n, got, err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// startRelay runs a relay with default settings in this process. stop returns
// what Run returned.
func startRelay(ctx context.Context, db *database, conn *natsconn.Conn) (stop func() error, err error) {
	return startRelayWith(ctx, db, conn, outbox.RelayConfig{})
}

// startRelayWith is startRelay with other settings.
func startRelayWith(ctx context.Context, db *database, conn *natsconn.Conn, cfg outbox.RelayConfig) (stop func() error, err error) {
	cfg.Logger = quiet()
	out, err := outbox.New(set(), outbox.Config{})
	if err != nil {
		return nil, err
	}
	relay, err := outbox.NewRelay(out, db.Pool, conn.JetStream(), cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}, nil
}

// quiet logs what is wrong and nothing else.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// silent is for what is broken on purpose.
func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }
