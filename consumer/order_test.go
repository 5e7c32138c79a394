package consumer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
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
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// ledger is a database whose effects tell key and number in commit order.
type ledger struct {
	*bundle
	pool *pgxpool.Pool
	in   *inbox.Inbox
}

func setupLedger(t *testing.T, change ...func(*topology.Consumer)) *ledger {
	t.Helper()
	return ledgerOn(t, setup(t, append([]func(*topology.Consumer){func(c *topology.Consumer) {
		c.MaxAckPending = 400
	}}, change...)...))
}

func ledgerOn(t *testing.T, b *bundle) *ledger {
	t.Helper()
	l := &ledger{bundle: b, pool: dvtest.Postgres(t)}
	l.in = newInbox(t, l.pool)
	_, err := l.pool.Exec(t.Context(), createEffects)
	require.NoError(t, err)
	return l
}

const (
	createEffects = `create table effect (seq bigint generated always as identity, key text, n int, message uuid, at timestamptz default clock_timestamp())`
	insertEffect  = `insert into effect (key, n, message) values ($1, $2, $3)`
)

// ordered adds an Order with a short lease.
func (l *ledger) ordered(change ...func(*consumer.Config)) consumer.Config {
	return l.config(append([]func(*consumer.Config){func(c *consumer.Config) {
		c.Order, c.Store, c.Concurrency = &consumer.Order{LeaseTTL: time.Second}, l.in, 16
	}}, change...)...)
}

// numberV1 is the n-th event of its key, which is the envelope's subject.
type numberV1 struct {
	N int `json:"n"`
}

var counted = envelope.MustEvent[numberV1](envelope.EventSpec{Service: subject.Maskin, Entity: "counter", Verb: "raised", Version: 1})

// apply is a handler that writes the effect, after before allowed it.
func (l *ledger) apply(before func(context.Context, envelope.Received[numberV1]) error) envelope.Route {
	return applyTo(l.in, before)
}

func applyTo(in *inbox.Inbox, before func(context.Context, envelope.Received[numberV1]) error) envelope.Route {
	return inbox.On(in, counted, func(ctx context.Context, tx pgx.Tx, m envelope.Received[numberV1]) error {
		if before != nil {
			if err := before(ctx, m); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, insertEffect, m.Envelope.Subject, m.Data.N, m.Envelope.ID)
		return err
	})
}

// count publishes the events n of a key.
func (l *ledger) count(t *testing.T, key string, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		l.send(t, number(t, key, n))
	}
}

func number(t *testing.T, key string, n int) *nats.Msg {
	t.Helper()
	return draft(t, counted.New(key, numberV1{N: n}))
}

// publishKeys publishes events 1 to each of so many keys, mixed.
func (l *ledger) publishKeys(t *testing.T, keys, each int) {
	t.Helper()
	next := make([]int, keys)
	for range keys * each {
		k := rand.IntN(keys)
		for next[k] == each {
			k = (k + 1) % keys
		}
		next[k]++
		_, err := l.js.PublishMsgAsync(number(t, fmt.Sprintf("key%04d", k), next[k]), jetstream.WithStallWait(soon))
		require.NoError(t, err)
	}
	<-l.js.PublishAsyncComplete()
}

// requireOrder demands each event of each key once, in the order of the numbers.
func (l *ledger) requireOrder(t *testing.T, keys, each int) {
	t.Helper()
	rows, err := l.pool.Query(t.Context(), `select key, array_agg(n order by seq) from effect group by key`)
	require.NoError(t, err)
	want := make([]int, each)
	for i := range want {
		want[i] = i + 1
	}
	var key string
	var got []int
	seen := 0
	_, err = pgx.ForEachRow(rows, []any{&key, &got}, func() error {
		seen++
		require.Equal(t, want, got, key)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, keys, seen)
}

func (l *ledger) effects(key string) (numbers []int) {
	rows, err := l.pool.Query(context.Background(), `select n from effect where key = $1 order by seq`, key)
	if err == nil {
		numbers, _ = pgx.CollectRows(rows, pgx.RowTo[int])
	}
	return numbers
}

// awaitEffects waits for the effects of a key.
func (l *ledger) awaitEffects(t *testing.T, key string, want ...int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(l.effects(key)) >= len(want) }, soon, tick, "effects of %s", key)
	require.Equal(t, want, l.effects(key))
}

// The heart of it: a thousand keys at once, a good part of the messages failing
// at first, and every key in its order.
//
// A row of docs/DELIVERY.md.
func TestKeysKeepTheirOrderWhileHeadsFail(t *testing.T) {
	t.Parallel()
	l := setupLedger(t)
	var failed sync.Map
	r := l.run(t, l.ordered(), l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if _, again := failed.LoadOrStore(m.Envelope.ID, true); !again && rand.IntN(5) == 0 {
			return errBroken
		}
		return nil
	}))
	l.publishKeys(t, 1000, 4)
	l.settled(t)
	l.requireOrder(t, 1000, 4)
	require.Positive(t, r.Stats().Retried)
	require.Empty(t, l.graves.all())
}

// A failing head holds its key and no other; when it is a dead letter, the key
// goes on.
//
// A row of docs/DELIVERY.md.
func TestFailingHeadHoldsItsKeyOnlyAndIsBuriedInTheEnd(t *testing.T) {
	t.Parallel()
	l := setupLedger(t)
	release := make(chan struct{})
	var running sync.Map
	l.run(t, l.ordered(func(c *consumer.Config) { c.MaxAttempts = 4 }), l.apply(func(_ context.Context, m envelope.Received[numberV1]) error {
		if _, twice := running.LoadOrStore(m.Envelope.Subject, true); twice {
			t.Error("two messages of one key at once")
		}
		defer running.Delete(m.Envelope.Subject)
		if m.Envelope.Subject == "bad" && m.Data.N == 1 {
			if m.Attempt == 4 {
				<-release
			}
			return errBroken
		}
		return nil
	}))
	l.count(t, "bad", 1, 2, 3)
	l.count(t, "good", 1, 2, 3)
	l.awaitEffects(t, "good", 1, 2, 3)
	require.Empty(t, l.effects("bad"))
	close(release)
	l.awaitEffects(t, "bad", 2, 3)
	letter := l.graves.await(t, 1)[0]
	require.Equal(t, envelope.ClassExhausted, letter.Class)
	require.Equal(t, 4, letter.Attempts)
	l.settled(t)
	require.Zero(t, rowsOf(t, l.pool, "inbox_attempts"))
}

// memory is a Store that holds no leases.
type memory struct{ consumer.Store }

func TestOrderIsChecked(t *testing.T) {
	t.Parallel()
	l := setupLedger(t)
	refused := func(change func(*consumer.Config)) string {
		_, err := consumer.New(l.js, l.graves, l.ordered(change), l.apply(nil))
		require.Error(t, err)
		return err.Error()
	}
	require.Contains(t, refused(func(c *consumer.Config) { c.Store = nil }), "Config.Order: needs a Store")
	require.Contains(t, refused(func(c *consumer.Config) { c.Store = memory{} }), "Config.Order: needs a Store")
	require.Contains(t, refused(func(c *consumer.Config) { c.Order.HoldKey = true }), "Config.Order.HoldKey: dead cannot tell")
	require.Contains(t, refused(func(c *consumer.Config) { c.Order.LeaseTTL = time.Millisecond }), "Config.Order.LeaseTTL: 1ms is out of range")
	require.Contains(t, refused(func(c *consumer.Config) { c.Order.LeaseTTL = time.Hour }), "Config.Order.LeaseTTL")
	require.Contains(t, refused(func(c *consumer.Config) { c.Order.MaxAhead = 10 }), "Config.Order.MaxAhead: 10 is out of range")
	require.Contains(t, refused(func(c *consumer.Config) { c.Order.Shard, c.Order.Shards = 3, 3 }), "Config.Order.Shard: 3 of 3")
	require.Contains(t, refused(func(c *consumer.Config) { c.Order.Shards = 65 }), "Config.Order.Shard: 0 of 65")
	effective := consumer.Effective(l.ordered(func(c *consumer.Config) { c.Order = &consumer.Order{} }))
	require.Equal(t, consumer.DefaultLeaseTTL, effective.Order.LeaseTTL)
	require.Equal(t, consumer.DefaultMaxAhead, effective.Order.MaxAhead)
	l.new(t, l.ordered(func(c *consumer.Config) { c.Order = &consumer.Order{Shard: 1, Shards: 2} }), l.apply(nil))
}
