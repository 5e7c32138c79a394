package consumer_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// install is what sentral asks of maskin.
var install = envelope.MustCommand[serverV1](envelope.CommandSpec{Service: subject.Maskin, Entity: "server", Action: "install", Version: 1})

// asker is sentral at site A: its outbox, and its relay until the test ends.
type asker struct {
	pool *pgxpool.Pool
	out  *outbox.Outbox
	conn *natsconn.Conn
	tracing
}

func setupAsker(t *testing.T, site *dvtest.Site) *asker {
	t.Helper()
	a := &asker{pool: dvtest.Postgres(t), conn: site.Connect(t), tracing: newTracing()}
	set := site.Ensure(t, a.conn, topology.Set{
		Service: subject.Sentral, Streams: []topology.Stream{topology.Commands(subject.Maskin, topology.Limits{MaxBytes: 16 << 20})},
	})
	var err error
	a.out, err = outbox.New(set, outbox.Config{TracerProvider: a})
	require.NoError(t, err)
	relay, err := outbox.NewRelay(a.out, a.pool, a.conn.JetStream(), outbox.RelayConfig{
		PollInterval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler), TracerProvider: a,
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return a
}

// ask sends a command to maskin at a site, in a transaction.
func (a *asker) ask(t *testing.T, name, site string) error {
	t.Helper()
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1"))
	return pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		return a.out.Enqueue(ctx, tx, install.New("srv-"+name, serverV1{Hostname: name}, envelope.ToSite(site), envelope.Datacenter(site)))
	})
}

// obeyer is maskin at a site: what it did, by name.
type obeyer struct {
	*platform
	site *dvtest.Site
	tracing
	log book
}

func setupObeyer(t *testing.T, s *dvtest.TwoSites, site *dvtest.Site) *obeyer {
	t.Helper()
	conn, small := site.Connect(t), topology.Limits{MaxBytes: 16 << 20}
	durable := topology.Consumer{
		Durable: "maskin__commands", Stream: s.Network().Commands(site.Name(), subject.Maskin, small),
		Filter: subject.CommandsOf(subject.Maskin), AckWait: 5 * time.Second, MaxAckPending: 8, Start: topology.StartFirst(),
	}
	site.Ensure(t, conn, topology.Set{
		Service: subject.Maskin, Consumers: []topology.Consumer{durable},
		Streams: []topology.Stream{
			topology.Commands(subject.Maskin, small),
			topology.DeadLetters(subject.Maskin, small), topology.DeadLetterOps(subject.Maskin, small),
		},
	})
	o := &obeyer{site: site, tracing: newTracing(), platform: &platform{pool: dvtest.Postgres(t), bundle: &bundle{js: conn.JetStream(), declared: durable}}}
	var err error
	o.queue, err = dlq.Open(t.Context(), o.js, subject.Maskin, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	_, err = o.pool.Exec(t.Context(), `create table done (host text not null, on_subject text, site text, remote bool, datacenter text)`)
	require.NoError(t, err)
	in, err := inbox.New(o.pool, durable.Durable, inbox.Config{})
	require.NoError(t, err)
	c, err := consumer.New(o.js, o.queue, o.platform.config(func(c *consumer.Config) {
		c.Store, c.Site, c.TracerProvider, c.Logger = in, site.Name(), o, slog.New(slog.NewTextHandler(&o.log, nil))
	}),
		inbox.On(in, install, func(ctx context.Context, tx pgx.Tx, m received) error {
			if m.Data.Hostname == "bad" && !o.fixed.Load() {
				return envelope.Permanent(errBroken)
			}
			_, err := tx.Exec(ctx, `insert into done values ($1, $2, $3, $4, $5)`,
				m.Data.Hostname, m.Subject.String(), m.Site, m.Remote, m.Envelope.DatacenterID)
			return err
		}))
	require.NoError(t, err)
	awaitReady(t, start(t, c))
	return o
}

// did is what was done for a host, one line for each time.
func (o *obeyer) did(t *testing.T, host string) (lines []string) {
	t.Helper()
	rows, err := o.pool.Query(t.Context(), `select on_subject, site, remote, datacenter from done where host = $1`, host)
	require.NoError(t, err)
	var on, site, datacenter string
	var remote bool
	_, err = pgx.ForEachRow(rows, []any{&on, &site, &remote, &datacenter}, func() error {
		lines = append(lines, fmt.Sprintf("%s from %s remote=%t datacenter=%s", on, site, remote, datacenter))
		return nil
	})
	require.NoError(t, err)
	return lines
}

func (o *obeyer) awaitDid(t *testing.T, host string, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(o.did(t, host)) > 0 }, soon, tick, host)
	require.Equal(t, []string{want}, o.did(t, host))
}

// The whole way of a command to another site, with a local one beside it by the same
// code: from the sender's transaction over its outbox and relay, at its own site only,
// to the handler of the addressed service, also while the link is cut, and as a dead
// letter that is replayed.
//
// A row of docs/DELIVERY.md.
func TestACommandToAnotherSiteIsHandledThereOnce(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, topology.Flow{
		From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoCommands, Service: subject.Maskin, Owner: subject.Sentral,
	})
	near, far := setupObeyer(t, s, s.A()), setupObeyer(t, s, s.B())
	a := setupAsker(t, s.A())
	require.NoError(t, a.ask(t, "here", dvtest.SiteA))
	require.NoError(t, a.ask(t, "unsaid", ""))
	require.NoError(t, a.ask(t, "there", dvtest.SiteB))
	near.awaitDid(t, "here", "dv.maskin.cmd.install from dc1 remote=false datacenter=dc1")
	near.awaitDid(t, "unsaid", "dv.maskin.cmd.install from dc1 remote=false datacenter=")
	far.awaitDid(t, "there", "dv.maskin.cmd.install from dc1 remote=true datacenter=dc2")
	require.Empty(t, near.did(t, "there"))
	waiting, err := a.conn.JetStream().Stream(t.Context(), "DV_MASKIN_CMD_TO_DC2")
	require.NoError(t, err)
	m, err := waiting.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, "dv.xdc.dc2.maskin.cmd.install", m.Subject, "it waits at the sender's site")
	require.Equal(t, dvtest.SiteA, m.Header.Get(envelope.HeaderSite))
	requireWhere(t, a, far)

	s.Cut()
	require.NoError(t, a.ask(t, "cut", dvtest.SiteB))
	require.NoError(t, a.ask(t, "bad", dvtest.SiteB))
	require.NoError(t, a.ask(t, "alone", dvtest.SiteA))
	near.awaitDid(t, "alone", "dv.maskin.cmd.install from dc1 remote=false datacenter=dc1")
	require.Empty(t, far.did(t, "cut"))
	s.Heal()
	s.AwaitFlows(t)
	far.awaitDid(t, "cut", "dv.maskin.cmd.install from dc1 remote=true datacenter=dc2")

	require.Eventually(t, func() bool { return len(far.letters(t)) == 1 }, soon, tick)
	require.Empty(t, near.letters(t))
	require.Eventually(t, func() bool { return len(far.log.lines("consumer: dead letter")) == 1 }, soon, tick)
	require.Contains(t, far.log.lines("consumer: dead letter")[0], "site=dc1 remote=true datacenter_id=dc2")
	letter := far.letters(t)[0]
	require.Equal(t, "dv.maskin.cmd.install", letter.Subject, "the subject that it arrived on")
	far.fixed.Store(true)
	_, err = far.queue.Replay(t.Context(), letter.ID, dlq.Request{By: "operator:ola", Reason: "fixed"})
	require.NoError(t, err)
	far.awaitDid(t, "bad", "dv.maskin.cmd.install from dc1 remote=true datacenter=dc2")
}

// requireWhere demands that the spans of the command to the other site tell where it
// was made, sent and handled, and where its resource belongs.
func requireWhere(t *testing.T, a *asker, far *obeyer) {
	t.Helper()
	where := func(s tracetest.SpanStub) (values [4]string) {
		for i, key := range []attribute.Key{"messaging.nats.site", "messaging.nats.to_site", "messaging.nats.remote", "messaging.nats.datacenter_id"} {
			values[i] = attr(s, key)
		}
		return values
	}
	handled := far.tracing.await(t, "process dv.maskin.cmd.install", 1)[0]
	require.Equal(t, [4]string{"dc1", "", "true", "dc2"}, where(handled))
	for _, made := range a.tracing.await(t, "create dv.maskin.cmd.install", 3) {
		if made.SpanContext.SpanID() == handled.Parent.SpanID() {
			require.Equal(t, [4]string{"dc1", "dc2", "", "dc2"}, where(made))
		}
	}
	sent := a.tracing.await(t, "send dv.xdc.dc2.maskin.cmd.install", 1)[0]
	require.Equal(t, "dc1", where(sent)[0])
}

// What no declared flow takes is refused before the transaction is touched.
func TestACommandThatNoFlowTakesIsRefusedByEnqueue(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t)
	site := s.A()
	conn := site.Connect(t)
	site.Ensure(t, conn, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Commands(subject.Maskin, topology.Limits{MaxBytes: 16 << 20})}})
	a := setupAsker(t, site)
	var fault *topology.NoFlowError
	err := a.ask(t, "there", dvtest.SiteB)
	require.ErrorAs(t, err, &fault)
	require.Equal(t, [2]string{dvtest.SiteA, dvtest.SiteB}, [2]string{fault.From, fault.To})
	require.ErrorContains(t, err, `add Flow{From: "dc1", To: "dc2", Cargo: CargoCommands, Service: maskin} to Network.Flows`)
	require.ErrorAs(t, a.ask(t, "nowhere", "bgo1"), &fault)
	require.NoError(t, a.ask(t, "here", dvtest.SiteA), "the transaction of the next one is as good as ever")
}
