package consumer_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
)

// An instance that stands by sends no requests, so none of its can be answered.
// It is ready all the same when what it complained of is over: else a rolling
// update would wait for it for ever.
func TestStandbyIsReadyAgainWhenItsDurableIs(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	nc, err := nats.Connect(server.URL(), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	l := ledgerOn(t, setupOn(t, js))
	f, _, ok, err := l.in.Acquire(t.Context(), l.declared.Stream.Name+"/"+l.declared.Durable, "the active one", time.Minute)
	require.NoError(t, err)
	require.True(t, ok)
	r := l.run(t, l.ordered(), l.apply(nil))

	require.NoError(t, js.DeleteConsumer(t.Context(), l.declared.Stream.Name, l.declared.Durable))
	require.NoError(t, nc.ForceReconnect())
	require.Eventually(t, func() bool {
		_, missing := errors.AsType[*consumer.DurableMissingError](r.Ready())
		return missing
	}, soon, tick)
	l.createDurable(t)
	require.Eventually(t, func() bool { return r.Ready() == nil }, soon, tick, "ready only when it is active")
	require.False(t, r.Stats().Active)

	require.NoError(t, l.in.Release(t.Context(), f))
	l.count(t, "key", 1, 2)
	l.awaitEffects(t, "key", 1, 2)
	awaitReady(t, r)
}
