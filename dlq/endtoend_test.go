package dlq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// registering runs a consumer with an inbox whose handler refuses a server
// without a name.
func (b *bundle) registering(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	_, err := pool.Exec(t.Context(), `create table node (message uuid not null, hostname text not null)`)
	require.NoError(t, err)
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	route := inbox.On(in, hostType[host](1), func(ctx context.Context, tx pgx.Tx, m envelope.Received[host]) error {
		if m.Data.Hostname == "" {
			return envelope.Permanent(errors.New("server has no hostname"))
		}
		_, err := tx.Exec(ctx, `insert into node values ($1, $2)`, m.Envelope.ID, m.Data.Hostname)
		return err
	})
	events := topology.Events(subject.Maskin, topology.Limits{})
	declared := topology.Consumer{
		Durable: durable, Stream: events, Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}))
	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{
		Service: service, Consumers: []topology.Consumer{declared},
		Streams: []topology.Stream{events, topology.DeadLetters(service, topology.Limits{}), topology.DeadLetterOps(service, topology.Limits{})},
	}))
	c, err := consumer.New(b.js, b.queue, consumer.Config{Consumer: declared, Logger: quiet()}, route)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })
}

// settled waits until the durable has nothing left to do.
func (b *bundle) settled(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		c, err := b.js.Consumer(t.Context(), source, durable)
		if err != nil {
			return false
		}
		info := c.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	}, 30*time.Second, 20*time.Millisecond)
}

// The life of a message whose payload is wrong: it dies, has no effect however
// often it comes, is edited, and has its effect once under its own id; whatever
// comes of the original afterwards has none.
//
// A row of docs/DELIVERY.md.
func TestAnEditedReplayIsAppliedOnce(t *testing.T) {
	t.Parallel()
	b, pool := setup(t), dvtest.Postgres(t)
	b.registering(t, pool)
	publish := func(data string) {
		e, err := envelope.Decode([]byte(data))
		require.NoError(t, err)
		m := &nats.Msg{Subject: original, Header: nats.Header(envelope.Message{Envelope: e}.Header()), Data: []byte(data)}
		m.Header.Del(envelope.HeaderMsgID) // as if it came again behind the duplicate window
		_, err = b.js.PublishMsg(t.Context(), m)
		require.NoError(t, err)
		b.settled(t)
	}
	nodes := func() (all []string) {
		rows, err := pool.Query(t.Context(), `select message || ' ' || hostname from node`)
		require.NoError(t, err)
		all, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return all
	}
	died := foreignEnvelope(`{"hostname":"","rack":7}`)
	publish(died)
	publish(died)
	require.Empty(t, nodes())
	letters := b.list(t, dlq.Filter{})
	require.Len(t, letters, 1)
	require.Equal(t, envelope.ClassPoison, letters[0].Class)

	report, err := b.queue.ReplayAll(t.Context(), dlq.Filter{Resource: "server-1"}, editing(swift("ola"), rename))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	followed, err := b.queue.Follow(ctx, report.Replayed(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{letters[0].ID}, followed.Resolved)
	want := []string{goldenID + " server-1"}
	require.Equal(t, want, nodes())

	publish(died)
	require.Equal(t, want, nodes(), "the message was handled, as it was edited")
	require.Equal(t, dlq.StateResolved, b.show(t, letters[0].ID).State)
	_, err = b.queue.Replay(t.Context(), letters[0].ID, request("kari"))
	requireClosed(t, err, dlq.StateResolved, "service:plattform")
}

// A message whose header names another tenant than its envelope reaches no
// handler. It is a letter that names the tenant of the envelope, keeps the header
// as evidence, and is never replayed.
//
// A row of docs/DELIVERY.md.
func TestATenantMismatchIsASecurityLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	effects := b.handling(t)
	m := message(t, "tenant-1")
	data, err := m.Envelope.Encode()
	require.NoError(t, err)
	forged := &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data}
	forged.Header.Set(envelope.HeaderTenantID, "tenant-2")
	_, err = b.js.PublishMsg(t.Context(), forged)
	require.NoError(t, err)
	b.settled(t)
	require.Empty(t, effects())

	letters := b.list(t, dlq.Filter{Class: envelope.ClassSecurity, TenantID: "tenant-1"})
	require.Len(t, letters, 1)
	l := b.show(t, letters[0].ID)
	require.Equal(t, []string{"tenant-2"}, l.OriginalHeader[envelope.HeaderTenantID])
	require.Equal(t, data, l.Data)
	require.Equal(t, m.Envelope.CorrelationID, l.CorrelationID)
	for _, r := range []dlq.Request{request("ola"), editing(request("ola"), dlq.ReplaceData([]byte(`{"server_id":"x"}`)))} {
		_, err = b.queue.Replay(t.Context(), l.ID, r)
		require.True(t, is[*dlq.SecurityError](err), "%v", err)
	}
	require.Empty(t, effects())
}
