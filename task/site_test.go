package task_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
	"codeberg.org/dataverket/messaging/topology"
)

// apart is two sites: sentral at A opens tasks and keeps their states, maskin at B works
// on them.
type apart struct {
	s    *dvtest.TwoSites
	home *pgxpool.Pool // sentral's database
	out  *outbox.Outbox
	far  *worker
}

func setupApart(t *testing.T) *apart {
	t.Helper()
	s := dvtest.Sites(t,
		topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoCommands, Service: subject.Maskin, Owner: subject.Sentral},
		topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoTasks, Service: subject.Sentral},
		topology.Flow{From: dvtest.SiteB, To: dvtest.SiteA, Cargo: topology.CargoTasks, Service: subject.Sentral},
	)
	n := s.Network()
	a, b := s.A().Connect(t), s.B().Connect(t)
	s.A().Ensure(t, a, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{commands}})
	home := s.A().Ensure(t, a, topology.Set{
		Service: subject.Sentral, Streams: append(letters(subject.Sentral), commands, taskEvents),
		Consumers: append(n.Twins(dvtest.SiteA, projecting), projecting),
	})
	s.B().Ensure(t, b, topology.Set{Service: subject.Sentral, Streams: []topology.Stream{taskEvents}})
	there := s.B().Ensure(t, b, topology.Set{
		Service: subject.Maskin, Streams: append(letters(subject.Maskin), commands, taskEvents),
		Consumers: append(n.Twins(dvtest.SiteB, cancels), cancels, provisions),
	})
	p := &apart{s: s, home: dvtest.Postgres(t), out: newOutbox(t, home), far: setup(t, 20*time.Millisecond)}
	quiet := slog.New(slog.DiscardHandler)
	var err error
	p.far.reporter, err = task.NewReporter(p.far.pool, newOutbox(t, there), task.ReporterConfig{Interval: 20 * time.Millisecond, Logger: quiet})
	require.NoError(t, err)
	for _, one := range []struct {
		pool *pgxpool.Pool
		set  topology.Set
		conn *natsconn.Conn
	}{{p.home, home, a}, {p.far.pool, there, b}} {
		relay, err := outbox.NewRelay(newOutbox(t, one.set), one.pool, one.conn.JetStream(), outbox.RelayConfig{PollInterval: 20 * time.Millisecond, Logger: quiet})
		require.NoError(t, err)
		serve(t, relay.Run)
	}
	projection, err := task.NewProjection(p.home, task.ProjectionConfig{})
	require.NoError(t, err)
	for _, c := range home.Consumers {
		runAt(t, a, home, c, nil, projection.Routes()...)
	}
	for _, c := range there.Consumers {
		if c.Durable != provisions.Durable {
			runAt(t, b, there, c, nil, p.far.reporter.Cancels())
		}
	}
	runAt(t, b, there, there.Consumers[len(there.Consumers)-1], p.far.in, p.far.route(func(ctx context.Context, _ pgx.Tx, m received) error {
		task.FromContext(ctx).Progress(30, "copying the image")
		if m.Data.Hostname == "slow" {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		return nil
	}))
	return p
}

// runAt runs a consumer of a set's service at its site until the test ends.
func runAt(t *testing.T, conn *natsconn.Conn, set topology.Set, c topology.Consumer, store consumer.Store, routes ...envelope.Route) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	dead, err := dlq.Open(t.Context(), conn.JetStream(), set.Service, dlq.Config{Logger: quiet})
	require.NoError(t, err)
	running, err := consumer.New(conn.JetStream(), dead, consumer.Config{Consumer: c, Site: set.Site, Store: store, Logger: quiet}, routes...)
	require.NoError(t, err)
	serve(t, running.Run)
}

// open opens a task for a command to maskin at B.
func (p *apart) open(t *testing.T, host string) (id string) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), p.home, func(tx pgx.Tx) (err error) {
		command := provision.New("srv-1", provisionV1{Hostname: host}, envelope.ToSite(dvtest.SiteB), envelope.Datacenter(dvtest.SiteB))
		id, err = task.Start(request(t), tx, p.out, command, "Provision "+host)
		return err
	}))
	return id
}

func (p *apart) await(t *testing.T, id string, is func(task.Task) bool) (got task.Task) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		now, err := task.Get(t.Context(), p.home, "", id)
		require.NoError(c, err)
		require.True(c, is(now), "%+v", now)
		got = now
	}, soon, tick)
	return got
}

// Who sends a command to another site sees its task begin, progress and end, also one
// that was opened while the link was cut, and can cancel it.
//
// A row of docs/DELIVERY.md.
func TestATaskAtAnotherSiteIsFollowedAndCancelledFromHere(t *testing.T) {
	t.Parallel()
	p := setupApart(t)
	p.s.Cut()
	done := p.open(t, "db1")
	p.await(t, done, in(task.StateQueued))
	p.s.Heal()
	p.s.AwaitFlows(t)
	got := p.await(t, done, in(task.StateSucceeded))
	require.Equal(t, "Provision db1", got.Title)
	require.Equal(t, dvtest.SiteB, got.DatacenterID)
	require.Equal(t, 30, *got.Percent)

	slow := p.open(t, "slow")
	p.await(t, slow, func(got task.Task) bool { return got.Message == "copying the image" })
	require.NoError(t, pgx.BeginFunc(t.Context(), p.home, func(tx pgx.Tx) error {
		return task.Cancel(request(t), tx, p.out, slow, "wrong rack")
	}))
	got = p.await(t, slow, in(task.StateCancelled))
	require.Equal(t, "wrong rack", got.Cancel.Reason)
}
