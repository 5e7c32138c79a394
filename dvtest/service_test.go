package dvtest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The service that the kit is tested with: maskin provisions servers, plattform
// registers them as nodes. It is what a service author has before the first test.

// ServerProvisionedV1 is what maskin promises in version 1.
type ServerProvisionedV1 struct {
	Hostname string `json:"hostname"`
}

// ServerProvisionedV2 is what it promises in version 2.
type ServerProvisionedV2 struct {
	Hostname string `json:"hostname"`
	Rack     string `json:"rack"`
}

// The messages, constant.
var (
	ServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
	})
	ServerProvisionedNew = envelope.MustEvent[ServerProvisionedV2](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 2,
	})
	NodeRegistered = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
		Service: subject.Plattform, Entity: "node", Verb: "registered", Version: 1,
	})
	ProvisionServer = envelope.MustCommand[ServerProvisionedV1](envelope.CommandSpec{
		Service: subject.Maskin, Entity: "server", Action: "provision", Version: 1,
	})
)

// The streams, constant.
var (
	maskinEvents    = topology.Events(subject.Maskin, topology.Limits{})
	maskinCommands  = topology.Commands(subject.Maskin, topology.Limits{})
	plattformEvents = topology.Events(subject.Plattform, topology.Limits{})
	maskin          = topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinEvents, maskinCommands}}
	nodes           = topology.Consumer{
		Durable: "plattform__from_maskin", Stream: maskinEvents,
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	plattform = topology.Set{
		Service: subject.Plattform, Consumers: []topology.Consumer{nodes},
		Streams: []topology.Stream{
			maskinEvents, plattformEvents,
			topology.DeadLetters(subject.Plattform, topology.Limits{}),
			topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
		},
	}
)

// newPool is the database with the service's own tables.
func newPool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool := dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), "create table server (id text primary key, hostname text); create table node (id text primary key, hostname text)")
	require.NoError(t, err)
	return pool
}

func newOutbox(t testing.TB, set topology.Set, cfg outbox.Config) *outbox.Outbox {
	t.Helper()
	out, err := outbox.New(set, cfg)
	require.NoError(t, err)
	return out
}

// request is the context of a request at the edge.
func request(t testing.TB) context.Context {
	return envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1"))
}

// Provision commits a server and the event of it, or neither.
func Provision(ctx context.Context, pool *pgxpool.Pool, id, hostname string) error {
	out, err := outbox.New(maskin, outbox.Config{})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := out.Enqueue(ctx, tx, ServerProvisioned.New(id, ServerProvisionedV1{Hostname: hostname})); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "insert into server (id, hostname) values ($1, $2)", id, hostname)
		return err
	})
}

// RegisterNode is plattform's route: once per message a node, and the event of it.
func RegisterNode(t testing.TB, pool *pgxpool.Pool) envelope.Route {
	t.Helper()
	out := newOutbox(t, plattform, outbox.Config{})
	in, err := inbox.New(pool, "node_registry", inbox.Config{})
	require.NoError(t, err)
	return inbox.On(in, ServerProvisioned, func(ctx context.Context, tx pgx.Tx, m envelope.Received[ServerProvisionedV1]) error {
		if m.Data.Hostname == "" {
			return envelope.Permanent(fmt.Errorf("server %s has no hostname", m.Envelope.Subject))
		}
		if _, err := tx.Exec(ctx, "insert into node (id, hostname) values ($1, $2)", m.Envelope.Subject, m.Data.Hostname); err != nil {
			return err
		}
		return out.Enqueue(ctx, tx, NodeRegistered.New(m.Envelope.Subject, m.Data))
	})
}

// Serve runs relay and consumer until the test ends.
func Serve(t testing.TB, pool *pgxpool.Pool, js jetstream.JetStream) {
	t.Helper()
	require.NoError(t, topology.Ensure(t.Context(), js, maskin))
	require.NoError(t, topology.Ensure(t.Context(), js, plattform))
	quiet := slog.New(slog.DiscardHandler)
	out := newOutbox(t, maskin, outbox.Config{})
	relay, err := outbox.NewRelay(out, pool, js, outbox.RelayConfig{PollInterval: 5 * time.Millisecond, Logger: quiet})
	require.NoError(t, err)
	dead, err := dlq.Open(t.Context(), js, subject.Plattform, dlq.Config{Logger: quiet})
	require.NoError(t, err)
	registry, err := consumer.New(js, dead, consumer.Config{Consumer: nodes, Logger: quiet}, RegisterNode(t, pool))
	require.NoError(t, err)
	serve(t, relay.Run, registry.Run)
}

// serve runs loops until the test ends, and waits for their end.
func serve(t testing.TB, loops ...func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var group errgroup.Group
	for _, run := range loops {
		group.Go(func() error { return run(ctx) })
	}
	t.Cleanup(func() {
		stop()
		if err := group.Wait(); !errors.Is(err, context.Canceled) {
			require.NoError(t, err)
		}
	})
}

func count(t testing.TB, pool *pgxpool.Pool, table string) (n int) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n))
	return n
}
