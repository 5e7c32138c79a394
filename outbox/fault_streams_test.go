package outbox_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// One of three streams is full and another is missing. The third flows, readiness
// names both, a full stream evicts nothing, and each drains in order once it can.
//
// A row of docs/DELIVERY.md.
func TestOneStreamFullAndOneMissingHoldBackOnlyThemselves(t *testing.T) {
	t.Parallel()
	const room, sent = 5, 40
	makeBucket := envelope.MustCommand[counted](envelope.CommandSpec{Service: subject.Objekt, Entity: "bucket", Action: "make", Version: 1})
	objektCommands := topology.Commands(subject.Objekt, topology.Limits{})
	out, err := outbox.New(topology.Set{
		Service: subject.Maskin, Streams: []topology.Stream{maskinEvents, nettCommands, objektCommands},
	}, outbox.Config{})
	require.NoError(t, err)
	b := bundle{pool: dvtest.Postgres(t), js: dvtest.NATS(t).JetStream(), out: out}
	createStreams(t, b.js) // not DV_OBJEKT_CMD
	limit(t, b.js, nettCommands.Name, room)
	r := b.newRelay(t, outbox.RelayConfig{PageRows: 15})
	run(t, r)

	counter := map[string]int{}
	round := func() {
		for range sent / 2 {
			counter["a"]++
			data := counted{Key: "a", N: counter["a"]}
			err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
				return b.out.Enqueue(origin(t.Context()), tx, serverCounted.New("a", data), provision.New("a", data), makeBucket.New("a", data))
			})
			require.NoError(t, err)
		}
	}
	round()
	b.requireStored(t, nettCommands.Name, room)
	b.requireStored(t, events, sent/2)
	requireHeld(t, r, nettCommands.Name, objektCommands.Name)
	round()
	b.requireStored(t, events, sent)
	requireCounted(t, published(t, b.js, events), counter)
	requireCounted(t, published(t, b.js, nettCommands.Name), map[string]int{"a": room}) // what was unread stays

	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{Service: subject.Objekt, Streams: []topology.Stream{objektCommands}}))
	b.requireStored(t, objektCommands.Name, sent)
	requireCounted(t, published(t, b.js, objektCommands.Name), counter)
	requireHeld(t, r, nettCommands.Name)
	limit(t, b.js, nettCommands.Name, -1)
	b.requireStored(t, nettCommands.Name, sent)
	requireCounted(t, published(t, b.js, nettCommands.Name), counter)
	requireHeld(t, r)
}

// requireHeld waits until readiness names these streams and no others.
func requireHeld(t *testing.T, r *outbox.Relay, streams ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := r.Ready()
		if err == nil {
			return len(streams) == 0
		}
		for _, name := range []string{events, nettCommands.Name, "DV_OBJEKT_CMD"} {
			if strings.Contains(err.Error(), "stream "+name+",") != slices.Contains(streams, name) {
				return false
			}
		}
		return true
	}, 20*time.Second, 5*time.Millisecond, "want %v to be held", streams)
}

// limit bounds a stream to a number of messages; -1 takes the bound away.
func limit(t *testing.T, js jetstream.JetStream, stream string, messages int64) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	require.NoError(t, err)
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = messages
	_, err = js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
}
