package consumer_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/faultlink"
)

// linked connects over a link, which a test cuts.
func linked(t *testing.T, server *dvtest.NATSServer) (*faultlink.Link, jetstream.JetStream) {
	t.Helper()
	link, err := faultlink.Listen(strings.TrimPrefix(server.URL(), "nats://"))
	require.NoError(t, err)
	t.Cleanup(link.Close)
	return link, connect(t, "nats://"+link.Addr())
}

func connect(t *testing.T, url string, more ...nats.Option) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, append(more, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0))...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

// mute is a dialer: no heartbeat of a message gets through on what it dials.
type mute struct{ net.Conn }

// Dial implements nats.CustomDialer.
func (mute) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	return mute{conn}, err
}

// Write makes a heartbeat a word that the server does not know, and ignores.
func (m mute) Write(p []byte) (int, error) {
	return m.Conn.Write(bytes.ReplaceAll(p, []byte("+WPI"), []byte("?WPI")))
}

// ownPool is a pool of n connections to the test's database.
func ownPool(t *testing.T, pool *pgxpool.Pool, n int32) *pgxpool.Pool {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(connString(pool))
	require.NoError(t, err)
	cfg.MaxConns = n
	own, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(own.Close)
	return own
}

// counting counts the calls of a route.
func counting(calls *tally, r envelope.Route) envelope.Route {
	handle := r.Handle
	r.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		calls.add(d.Envelope.Subject)
		return handle(ctx, d)
	}
	return r
}

// A message is handled for many times AckWait, and no heartbeat gets through: the
// server delivers it again and again, to six instances in turn. It has its effect
// once, and although starts of its handler do not end, it is not taken for one
// that kills: it was, and became a dead letter while its handler worked.
//
// A row of docs/DELIVERY.md.
func TestRedeliveryStormHasItsEffectOnce(t *testing.T) {
	t.Parallel()
	const ackWait = 250 * time.Millisecond
	f := setupReplicas(t, ackWait)
	var calls tally
	var instances []*running
	for range 6 {
		far := *f.bundle
		far.js = connect(t, f.server.URL(), nats.SetCustomDialer(mute{}))
		in := newInbox(t, ownPool(t, f.pool, 10))
		route := inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
			_, err := tx.Exec(ctx, `insert into node select $1 from pg_sleep($2)`, m.Data.Hostname, (8 * ackWait).Seconds())
			return err
		})
		instances = append(instances, far.run(t, far.config(withStore(in)), counting(&calls, route)))
	}
	f.publish(t, "slow")
	f.settled(t)
	for _, r := range instances {
		require.NoError(t, r.stop())
	}
	requireOnce(t, f.pool, []string{"slow"})
	require.Empty(t, f.graves.all(), "a message that is handled is taken for dead")
	var duplicates uint64
	for _, r := range instances {
		duplicates += r.Stats().Duplicates
	}
	info, err := f.info()
	require.NoError(t, err)
	require.Greater(t, info.Delivered.Consumer, uint64(6), "no storm: the test proves nothing")
	require.Greater(t, len(calls.names()), 1, "the message was never with two instances at once")
	require.NotZero(t, duplicates)
	t.Logf("%d deliveries, %d calls, %d duplicates", info.Delivered.Consumer, len(calls.names()), duplicates)
}

// The durable is deleted while the consumer is disconnected, with a message in a
// handler whose ack goes nowhere, and created anew before or after it is back. What
// the stream holds is delivered from the start: nothing is lost, what was done is
// not done again, and a durable that is not there is reported and asked for with
// backoff.
//
// A row of docs/DELIVERY.md.
func TestDurableDeletedWhileDisconnectedIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"created before the reconnect": true, "created after it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setupReplicas(t, time.Hour)
			far := *f.bundle
			link, js := linked(t, f.server)
			far.js = js
			in := newInbox(t, ownPool(t, f.pool, 8))
			r := far.run(t, far.config(withStore(in)), applying(in, func(string) {}))
			names := numbered(60)
			f.publish(t, names[:20]...)
			f.settled(t)
			release := holdHandlers(t, f.pool, beforeCommit)
			f.publish(t, names[20:23]...)
			require.Eventually(t, func() bool { return waitingFor(t, f.pool, "advisory") == 3 }, soon, tick)

			link.Cut()
			awaitNotReady(t, r, "not connected")
			require.NoError(t, f.js.DeleteConsumer(t.Context(), f.declared.Stream.Name, f.declared.Durable))
			f.publish(t, names[23:40]...)
			if before {
				f.createDurable(t)
			}
			release()
			require.Eventually(t, func() bool { return r.Stats().Handled == 23 }, soon, tick)
			link.Heal()
			if !before {
				f.requireMissing(t, r)
				f.createDurable(t)
			}
			f.publish(t, names[40:]...)
			f.settled(t)
			awaitReady(t, r)
			requireOnce(t, f.pool, names)
			require.Empty(t, f.graves.all())
			require.EqualValues(t, 23, r.Stats().Duplicates)
			require.EqualValues(t, 60, r.Stats().Handled)
		})
	}
}

// requireMissing waits until the consumer says that its durable is missing, and
// watches how often it asks then.
func (b *bundle) requireMissing(t *testing.T, r *running) {
	t.Helper()
	require.Eventually(t, func() bool {
		missing, ok := errors.AsType[*consumer.DurableMissingError](r.Ready())
		return ok && missing.Durable == b.declared.Durable
	}, soon, tick)
	before := r.Stats().Requests
	<-time.After(time.Second)
	require.LessOrEqual(t, r.Stats().Requests-before, uint64(6)) // after 100, 200, 400, 800 ms
	_, err := b.info()
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound, "nobody creates it but topology")
}
