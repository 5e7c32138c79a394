package consumer_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// platform is the whole path: declared topology, real dead letters, inbox.
type platform struct {
	*bundle
	pool  *pgxpool.Pool
	queue *dlq.Queue
	fixed atomic.Bool // the handler's bug
}

func setupPlatform(t *testing.T, letters topology.Limits) *platform {
	t.Helper()
	js := dvtest.NATS(t).JetStream()
	small := topology.Limits{MaxBytes: 16 << 20}
	events := topology.Events(subject.Maskin, small)
	p := &platform{pool: dvtest.Postgres(t), bundle: &bundle{js: js, declared: topology.Consumer{
		Durable: "plattform__from_maskin", Stream: events, Filter: subject.EventsOf(subject.Maskin),
		AckWait: 5 * time.Second, MaxAckPending: 8, Start: topology.StartFirst(),
	}}}
	require.NoError(t, topology.Ensure(t.Context(), js, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}))
	require.NoError(t, topology.Ensure(t.Context(), js, topology.Set{
		Service: subject.Plattform, Consumers: []topology.Consumer{p.declared},
		Streams: []topology.Stream{events, topology.DeadLetters(subject.Plattform, letters), topology.DeadLetterOps(subject.Plattform, small)},
	}))
	queue, err := dlq.Open(t.Context(), js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	p.queue = queue
	_, err = p.pool.Exec(t.Context(), `create table node (host text not null)`)
	require.NoError(t, err)
	return p
}

// start runs a consumer whose handler calls bad hosts poison until it is fixed.
func (p *platform) start(t *testing.T) *running {
	t.Helper()
	in, err := inbox.New(p.pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	route := inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		if _, err := tx.Exec(ctx, `insert into node (host) values ($1)`, m.Data.Hostname); err != nil {
			return err
		}
		if m.Data.Hostname == "bad" && !p.fixed.Load() {
			return envelope.Permanent(errBroken)
		}
		return nil
	})
	c, err := consumer.New(p.js, p.queue, p.config(), route)
	require.NoError(t, err)
	r := start(t, c)
	awaitReady(t, r)
	return r
}

func (p *platform) hosts(t *testing.T, host string) int {
	t.Helper()
	var n int
	require.NoError(t, p.pool.QueryRow(t.Context(), `select count(*) from node where host = $1`, host).Scan(&n))
	return n
}

// letters lists what is open.
func (p *platform) letters(t *testing.T) []dlq.Letter {
	t.Helper()
	var open []dlq.Letter
	for l, err := range p.queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		open = append(open, l)
	}
	return open
}

// The life of a poison message: dead letter, no effect however often it comes
// again, replay after the fix, effect once, letter resolved.
func TestPoisonIsBuriedFixedAndReplayedWithItsEffectOnce(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t, topology.Limits{MaxBytes: 16 << 20})
	p.start(t)
	bad := message(t, "bad")
	p.publish(t, "good1")
	p.send(t, bad)
	p.publish(t, "good2")
	p.settled(t)
	require.Equal(t, 1, p.hosts(t, "good1")+p.hosts(t, "good2")-1)
	require.Zero(t, p.hosts(t, "bad"))
	letters := p.letters(t)
	require.Len(t, letters, 1)

	p.fixed.Store(true)
	again := message(t, "bad")
	again.Data, again.Header = bad.Data, bad.Header
	again.Header.Del("Nats-Msg-Id") // republished behind the duplicate window
	p.send(t, again)
	p.settled(t)
	require.Zero(t, p.hosts(t, "bad"), "a dead message has no effect")

	_, err := p.queue.Replay(t.Context(), letters[0].ID, dlq.Request{By: "operator:ola", Reason: "fixed, DV-412"})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		l, err := p.queue.Show(t.Context(), letters[0].ID)
		return err == nil && l.State == dlq.StateResolved
	}, soon, 10*time.Millisecond)
	require.Equal(t, 1, p.hosts(t, "bad"))
}

// The dead-letter stream is full: the consumer pauses, and goes on by itself
// when there is room.
//
// A row of docs/DELIVERY.md.
func TestFullDeadLetterStreamPausesUntilThereIsRoom(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t, topology.Limits{MaxBytes: 16 << 20, MaxMsgs: 1})
	r := p.start(t)
	p.publish(t, "bad")
	p.settled(t)
	p.publish(t, "bad")
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	require.ErrorIs(t, r.Ready(), dlq.ErrFull)

	letters := topology.DeadLetters(subject.Plattform, topology.Limits{MaxBytes: 16 << 20, MaxMsgs: 10})
	_, err := p.js.UpdateStream(t.Context(), letters.Config())
	require.NoError(t, err)
	p.settled(t)
	awaitReady(t, r)
	require.Len(t, p.letters(t), 2)
}

// The dead-letter stream is lost and made anew: nothing is terminated meanwhile.
func TestLostDeadLetterStreamPausesUntilItIsBack(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t, topology.Limits{MaxBytes: 16 << 20})
	r := p.start(t)
	letters := topology.DeadLetters(subject.Plattform, topology.Limits{MaxBytes: 16 << 20})
	require.NoError(t, p.js.DeleteStream(t.Context(), letters.Name))
	p.publish(t, "bad")
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	_, err := p.js.CreateStream(t.Context(), letters.Config())
	require.NoError(t, err)
	p.settled(t)
	require.Len(t, p.letters(t), 1)
}
