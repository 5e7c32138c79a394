package consumer_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/topology"
)

// The server does not know that a request was given up. If it went on to serve
// it beside the next one, messages would come for which there is no worker, and
// go back and forth until their attempts are used up.
func TestReconnectsCostNoMessageAnAttempt(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	nc, err := nats.Connect(server.URL(), nats.ReconnectWait(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	b := setupOn(t, js, func(c *topology.Consumer) { c.MaxAckPending, c.AckWait = 40, time.Minute })
	var mu sync.Mutex
	repeated := map[string]int{}
	r := b.run(t, b.config(func(c *consumer.Config) { c.Concurrency = 4 }), handle(func(_ context.Context, m received) error {
		if m.Attempt > 1 {
			mu.Lock()
			defer mu.Unlock()
			repeated[m.Data.Hostname] = m.Attempt
		}
		<-time.After(10 * time.Millisecond)
		return nil
	}))
	for range 3 {
		before := r.Stats().Requests
		require.NoError(t, nc.ForceReconnect())
		// Two look-ups and two requests.
		require.Eventually(t, func() bool { return r.Stats().Requests >= before+4 && r.Ready() == nil }, soon, tick)
	}
	b.publish(t, numbered(60)...)
	b.settled(t)
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, repeated)
	require.Zero(t, r.Stats().Released)
	require.Empty(t, b.graves.all())
}

// Whoever may answer a request that was given up must find nobody listening.
func TestGivenUpRequestIsAnsweredToNobody(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		end  error // of the request's ctx
		want error
		gone bool
	}{
		"silence":         {nil, consumer.ErrSilent, true},
		"lost connection": {consumer.ErrDisconnected, consumer.ErrDisconnected, true},
		"shutdown":        {context.Canceled, context.Canceled, false}, // what is under way goes back at once
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := dvtest.NATS(t).NATS()
			requests := make(chan *nats.Msg, 2)
			_, err := nc.ChanSubscribe("silent.CONSUMER.MSG.NEXT.>", requests) // in place of the server
			require.NoError(t, err)
			js, err := jetstream.NewWithAPIPrefix(nc, "silent")
			require.NoError(t, err)
			cfg := validConfig()
			cfg.Logger = slog.New(slog.DiscardHandler)
			c, err := consumer.New(js, &graves{}, cfg, handle(ignore))
			require.NoError(t, err)
			source, err := consumer.OpenSource(c)
			require.NoError(t, err)
			defer source.Close(t.Context())

			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- source.Probe(ctx) }()
			first := <-requests
			if row.end != nil {
				cancel(row.end)
			}
			require.ErrorIs(t, <-ended, row.want)
			_, err = nc.RequestWithContext(shortly(t), first.Reply, nil)
			if row.gone {
				require.ErrorIs(t, err, nats.ErrNoResponders)
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			cancel(nil)
		})
	}
}

// shortly is a ctx that ends soon.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
