package history_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/history"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, natsserver.StillWaiting(
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))...)
}

const (
	source  = "DV_MASKIN_EVT"
	durable = "plattform__from_maskin"
)

// server is the payload of all events in these tests.
type server struct {
	N int `json:"n"`
}

func eventType(verb string, version int) envelope.Type[server] {
	return envelope.MustEvent[server](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: verb, Version: version})
}

// bundle is one server with the events of maskin.
type bundle struct {
	js jetstream.JetStream
	nc *nats.Conn
	n  int
}

func setup(tb testing.TB) *bundle {
	tb.Helper()
	conn := dvtest.NATS(tb)
	b := &bundle{js: conn.JetStream(), nc: conn.NATS()}
	require.NoError(tb, topology.Ensure(tb.Context(), b.js, topology.Set{
		Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})},
	}))
	return b
}

// publish stores n events about a resource, numbered over all of them.
func (b *bundle) publish(tb testing.TB, t envelope.Type[server], resource string, n int) {
	tb.Helper()
	ctx := envelope.WithOrigin(tb.Context(), envelope.NewOrigin("operator:kari", "tenant-1"))
	for range n {
		b.n++
		m, err := envelope.New(ctx, subject.Maskin, t.New(resource, server{b.n}))
		require.NoError(tb, err)
		data, err := m.Envelope.Encode()
		require.NoError(tb, err)
		b.send(tb, &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
	}
}

func (b *bundle) send(tb testing.TB, m *nats.Msg) {
	tb.Helper()
	_, err := b.js.PublishMsg(tb.Context(), m)
	require.NoError(tb, err)
}

// storedAt returns when the stored message was stored.
func (b *bundle) storedAt(tb testing.TB, sequence uint64) time.Time {
	tb.Helper()
	s, err := b.js.Stream(tb.Context(), source)
	require.NoError(tb, err)
	raw, err := s.GetMsg(tb.Context(), sequence)
	require.NoError(tb, err)
	return raw.Time
}

// read reads to the end or to the first error.
func (b *bundle) read(ctx context.Context, q history.Query) (sequences []uint64, err error) {
	for m, err := range history.Read(ctx, b.js, q) {
		if err != nil {
			return sequences, err
		}
		sequences = append(sequences, m.Sequence)
	}
	return sequences, nil
}

// consumers returns the names of all consumers of the stream.
func (b *bundle) consumers(tb testing.TB) []string {
	tb.Helper()
	s, err := b.js.Stream(tb.Context(), source)
	require.NoError(tb, err)
	names := []string{}
	lister := s.ConsumerNames(tb.Context())
	for name := range lister.Name() {
		names = append(names, name)
	}
	require.NoError(tb, lister.Err())
	return names
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// declared is the durable of these tests.
func declared(start topology.Start) topology.Consumer {
	return topology.Consumer{
		Durable: durable, Stream: topology.Events(subject.Maskin, topology.Limits{}),
		Filter: subject.EventsOf(subject.Maskin), Start: start, AckWait: 5 * time.Second,
	}
}

// set is what the consuming service declares.
func set(c topology.Consumer) topology.Set {
	return topology.Set{
		Service: subject.Plattform, Consumers: []topology.Consumer{c},
		Streams: []topology.Stream{c.Stream, topology.DeadLetters(subject.Plattform, topology.Limits{}), topology.DeadLetterOps(subject.Plattform, topology.Limits{})},
	}
}

// serve runs a consumer of the durable until the test ends.
func (b *bundle) serve(t *testing.T, c topology.Consumer, routes ...envelope.Route) {
	t.Helper()
	require.NoError(t, topology.Ensure(t.Context(), b.js, set(c)))
	dead, err := dlq.Open(t.Context(), b.js, subject.Plattform, dlq.Config{Logger: quiet()})
	require.NoError(t, err)
	cons, err := consumer.New(b.js, dead, consumer.Config{Consumer: c, Logger: quiet()}, routes...)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cons.Run(ctx) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })
}

// settled waits until the durable has handled everything.
func (b *bundle) settled(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		info := b.info(t)
		return info.NumPending == 0 && info.NumAckPending == 0
	}, 30*time.Second, 20*time.Millisecond)
}

func (b *bundle) info(tb testing.TB) *jetstream.ConsumerInfo {
	tb.Helper()
	c, err := b.js.Consumer(tb.Context(), source, durable)
	require.NoError(tb, err)
	return c.CachedInfo()
}

// tally counts deliveries by the number of the message.
type tally struct {
	mu sync.Mutex
	of map[int]int
}

func (c *tally) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[int]int{}
	}
	c.of[n]++
}

// count returns how often a message came.
func (c *tally) count(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[n]
}

// String lists each message with its count, in order.
func (c *tally) String() (text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := range len(c.of) + 100 {
		if c.of[n] > 0 {
			text += fmt.Sprintf("%d:%d ", n, c.of[n])
		}
	}
	return text
}

// counting is a stateless route that counts.
func counting(t envelope.Type[server], c *tally) envelope.Route {
	return consumer.On(t, func(_ context.Context, m envelope.Received[server]) error {
		c.add(m.Data.N)
		return nil
	})
}

// asked is a reset as an operator asks for it.
func asked(from uint64) history.ResetRequest {
	return history.ResetRequest{From: from, By: "operator:ola", Reason: "restored, DV-412", Logger: quiet()}
}
