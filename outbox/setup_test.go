package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The test binary is also the relay process that tests kill.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(relayChild())
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*Server).Start"),
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
}

// counted says that a key was counted to N: the N of one key are 1, 2, 3 … in
// commit order, so the stream itself shows what is lost, doubled or reordered.
type counted struct {
	Key string `json:"key"`
	N   int    `json:"n"`
	Pad string `json:"pad,omitempty"`
}

var (
	serverCounted = envelope.MustEvent[counted](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "counted", Version: 1})
	provision     = envelope.MustCommand[counted](envelope.CommandSpec{Service: subject.Nett, Entity: "link", Action: "provision", Version: 1})
	maskinEvents  = topology.Events(subject.Maskin, topology.Limits{})
	nettCommands  = topology.Commands(subject.Nett, topology.Limits{})
	maskinSet     = topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinEvents, nettCommands}}
)

// origin is the context of a request from the edge.
func origin(ctx context.Context) context.Context {
	return envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1"))
}

type bundle struct {
	pool *pgxpool.Pool
	js   jetstream.JetStream
	out  *outbox.Outbox
}

// setup gives a test a database with the tables and a broker with the streams.
func setup(t *testing.T) bundle {
	t.Helper()
	conn := dvtest.NATS(t)
	b := bundle{pool: dvtest.Postgres(t), js: conn.JetStream(), out: newOutbox(t)}
	createStreams(t, b.js)
	return b
}

func newOutbox(t testing.TB) *outbox.Outbox {
	t.Helper()
	out, err := outbox.New(maskinSet, outbox.Config{})
	require.NoError(t, err)
	return out
}

// createStreams acts as the owners of both streams.
func createStreams(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	require.NoError(t, topology.Ensure(t.Context(), js, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinEvents}}))
	require.NoError(t, topology.Ensure(t.Context(), js, topology.Set{Service: subject.Nett, Streams: []topology.Stream{nettCommands}}))
}

// enqueue commits one message per number, each in a transaction of its own.
func (b bundle) enqueue(t testing.TB, key string, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
			return b.out.Enqueue(origin(t.Context()), tx, serverCounted.New(key, counted{Key: key, N: n}))
		})
		require.NoError(t, err)
	}
}

// relay starts a relay and returns a function that stops it gracefully.
func (b bundle) relay(t testing.TB, cfg outbox.RelayConfig) (stop func()) {
	t.Helper()
	r := b.newRelay(t, cfg)
	return run(t, r)
}

func (b bundle) newRelay(t testing.TB, cfg outbox.RelayConfig) *outbox.Relay {
	t.Helper()
	if cfg.PollInterval == 0 {
		cfg.PollInterval = 5 * time.Millisecond
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r, err := outbox.NewRelay(b.out, b.pool, b.js, cfg)
	require.NoError(t, err)
	return r
}

// run runs the relay until the test ends or stop is called.
func run(t testing.TB, r *outbox.Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(t, <-done)
	}
	t.Cleanup(stop)
	return stop
}

// requireNotReady waits until Ready gives a reason that contains text.
func requireNotReady(t testing.TB, r *outbox.Relay, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), text)
	}, 20*time.Second, time.Millisecond, "Ready never says %q", text)
}

// requireReady waits until nothing holds the relay back. On a loaded machine an
// answer that comes late does, at any time.
func requireReady(t testing.TB, r *outbox.Relay) {
	t.Helper()
	require.Eventually(t, func() bool { return r.Ready() == nil }, 20*time.Second, time.Millisecond, "it is not ready")
}

// published reads a whole stream in stream order, from the beginning if a fault
// of the broker cuts it short.
func published(t testing.TB, js jetstream.JetStream, stream string) []counted {
	t.Helper()
	var all []counted
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		read, err := readStream(t.Context(), js, stream)
		require.NoError(c, err)
		all = read
	}, time.Minute, time.Millisecond)
	return all
}

func readStream(ctx context.Context, js jetstream.JetStream, stream string) ([]counted, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	total := int(s.CachedInfo().State.Msgs)
	all := make([]counted, 0, total)
	if total == 0 {
		return all, nil
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	for len(all) < total {
		batch, err := c.Fetch(min(total-len(all), 500), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, err
		}
		for m := range batch.Messages() {
			e, err := envelope.Decode(m.Data())
			if err != nil {
				return nil, err
			}
			var data counted
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return nil, err
			}
			all = append(all, data)
		}
		if err := batch.Error(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (b bundle) requireStored(t testing.TB, stream string, want uint64) {
	t.Helper()
	requireStored(t, b.js, stream, want)
}

func requireStored(t testing.TB, js jetstream.JetStream, stream string, want uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := js.Stream(t.Context(), stream)
		return err == nil && s.CachedInfo().State.Msgs == want
	}, 60*time.Second, 10*time.Millisecond, "%s does not reach %d messages", stream, want)
}

// requireCounted checks that every key was counted 1, 2, 3 … to its total:
// nothing lost, nothing doubled, nothing out of order.
func requireCounted(t testing.TB, got []counted, totals map[string]int) {
	t.Helper()
	next := map[string]int{}
	for i, c := range got {
		require.Equal(t, next[c.Key]+1, c.N, "position %d of the stream: key %s", i, c.Key)
		next[c.Key] = c.N
	}
	for key, n := range totals {
		require.Equal(t, n, next[key], "key %s: messages are missing at the end", key)
	}
}

func keyName(i int) string { return fmt.Sprintf("key-%02d", i) }

// enqueueOnKeys commits one more message of each key, in one transaction.
func (b bundle) enqueueOnKeys(t testing.TB, counter map[string]int, keys int) {
	t.Helper()
	require.NoError(t, b.commitRuns(t.Context(), counter, 0, keys, 1))
}

// commitRuns commits several more messages of each of some keys, one key after
// the other, in one transaction.
func (b bundle) commitRuns(ctx context.Context, counter map[string]int, firstKey, keys, run int) error {
	var drafts []envelope.Draft
	for i := range keys {
		key := keyName(firstKey + i)
		for range run {
			counter[key]++
			drafts = append(drafts, serverCounted.New(key, counted{Key: key, N: counter[key]}))
		}
	}
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		return b.out.Enqueue(origin(ctx), tx, drafts...)
	})
}

// requireExact checks that the stream holds each event once and in the order of
// its key, once the cursor has passed all of them.
func (b bundle) requireExact(t testing.TB, counter map[string]int) {
	t.Helper()
	b.requireDrained(t)
	var want int
	for _, n := range counter {
		want += n
	}
	t.Logf("%d messages stored, %d committed", storedMessages(t, b.js), want)
	requireCounted(t, published(t, b.js, events), counter)
}
