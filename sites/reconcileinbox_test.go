package sites_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

type serverV1 struct {
	Hostname string `json:"hostname"`
}

var provisioned = envelope.MustEvent[serverV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// What is sent again passes a service's own consumer: its origin is the site that
// published it, and its effect is there once, also of what came twice. A row of
// docs/DELIVERY.md.
func TestWhatIsSentAgainHasItsEffectOnce(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	pool := dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `create table effect (host text not null)`)
	require.NoError(t, err)
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	copied := s.Network().StreamOf(eventsToB())
	durable := topology.Consumer{
		Durable: "plattform__from_maskin", Stream: copied, Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	js := b.conn.JetStream()
	s.B().Ensure(t, b.conn, topology.Set{Service: subject.Plattform, Consumers: []topology.Consumer{durable}, Streams: []topology.Stream{
		copied, topology.DeadLetters(subject.Plattform, topology.Limits{}), topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
	}})
	letters, err := dlq.Open(t.Context(), js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	c, err := consumer.New(js, letters, consumer.Config{Consumer: durable, Store: in, Site: dvtest.SiteB, Logger: slog.New(slog.DiscardHandler)},
		inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m envelope.Received[serverV1]) error {
			_, err := tx.Exec(ctx, `insert into effect (host) values ($1)`, fmt.Sprintf("%s of %s remote=%t", m.Data.Hostname, m.Site, m.Remote))
			return err
		}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	// What is lost comes to the copy once more, which drops it as a repeat.
	w := b.watcherWith(t, compares(), func(w *sites.Watcher) { w.SetCalm(300 * time.Millisecond) })
	a.watcher(t, compares()) // also while its site is put back

	before := s.A().Snapshot(t)
	s.AwaitFlows(t)
	var lost []*nats.Msg
	for i := range 10 {
		lost = append(lost, provision(t, fmt.Sprintf("lost-%d", i)))
	}
	a.storeMessages(t, lost...)
	effects := func() (n, distinct int) {
		require.NoError(t, pool.QueryRow(t.Context(), `select count(*), count(distinct host) from effect where host like '% of dc1 remote=true'`).Scan(&n, &distinct))
		return n, distinct
	}
	awaitEffects := func(want int) {
		require.Eventually(t, func() bool { n, _ := effects(); return n >= want }, soon, 10*tick)
	}
	awaitEffects(10)
	s.A().RollBack(t, before)
	began := time.Now()
	anew := []*nats.Msg{provision(t, "new-1"), provision(t, "new-2"), provision(t, "new-3")}
	a.storeMessages(t, anew...)
	awaitEffects(13)
	// The relay of the origin publishes what was lost again, which reaches the copy
	// once more where its sequence is beyond.
	a.storeMessages(t, lost...)
	f := requireFlow(t, w, "complete", func(f sites.Flow) bool { return completeSince(began)(f) && f.OriginLacks == 0 })
	require.GreaterOrEqual(t, f.Resent, uint64(3))
	n, distinct := effects()
	require.Equal(t, 13, n)
	require.Equal(t, 13, distinct)
	for l, err := range letters.List(t.Context(), dlq.Filter{}) {
		require.Fail(t, "a dead letter", "%v %v", l, err)
	}
}

// provision is an event as maskin's relay publishes it.
func provision(t *testing.T, host string) *nats.Msg {
	t.Helper()
	m, err := envelope.New(envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:ola", "tenant-1")), subject.Maskin, provisioned.New(host, serverV1{Hostname: host}))
	require.NoError(t, err)
	data, err := m.Envelope.Encode()
	require.NoError(t, err)
	msg := &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data}
	msg.Header.Set(envelope.HeaderSite, dvtest.SiteA)
	return msg
}

func (e *end) storeMessages(t *testing.T, all ...*nats.Msg) {
	t.Helper()
	for _, m := range all {
		require.Eventually(t, func() bool {
			_, err := e.conn.JetStream().PublishMsg(t.Context(), m, jetstream.WithExpectStream(events))
			return err == nil
		}, soon, tick)
	}
}
