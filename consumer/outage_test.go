package consumer_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
)

// A row of docs/DELIVERY.md.
func TestDeletedDurableIsReportedAndTakenUpAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(ignore))
	b.publish(t, "a")
	b.settled(t)
	require.NoError(t, b.js.DeleteConsumer(t.Context(), b.declared.Stream.Name, b.declared.Durable))
	require.Eventually(t, func() bool {
		missing, ok := errors.AsType[*consumer.DurableMissingError](r.Ready())
		return ok && missing.Durable == b.declared.Durable
	}, soon, tick)
	_, err := b.info()
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound, "nobody creates it but topology")

	b.createDurable(t)
	b.publish(t, "b")
	require.Eventually(t, func() bool { return r.Stats().Handled == 3 && r.Ready() == nil }, soon, tick) // a again, from the start
}

func TestDeletedReplayDurableIsReportedToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.run(t, b.config(), handle(ignore))
	require.NoError(t, b.js.DeleteConsumer(t.Context(), b.declared.ReplayStream(), b.declared.ReplayDurable()))
	awaitNotReady(t, r, b.declared.ReplayDurable())
	b.publish(t, "a")
	b.settled(t) // the main pull goes on
}

// A row of docs/DELIVERY.md.
func TestRestartedServerIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	b := setupOn(t, server.Connect(t).JetStream())
	r := b.run(t, b.config(), handle(ignore))
	b.publish(t, "a")
	b.settled(t)
	server.Stop()
	require.Eventually(t, func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "not connected")
	}, soon, tick)
	server.Restart(t)
	awaitReady(t, r)
	b.publish(t, "b")
	b.settled(t)
	require.Equal(t, uint64(2), r.Stats().Handled)
}

// While there is no connection nothing is sent; what the client would buffer
// would all be sent at once afterwards.
func TestNothingIsAskedWhileDisconnected(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	b := setupOn(t, server.Connect(t).JetStream())
	r := b.run(t, b.config(), handle(ignore))
	server.Stop()
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	before := r.Stats().Requests
	<-time.After(time.Second)
	require.LessOrEqual(t, r.Stats().Requests, before+2, "a look-up may have been under way")
	require.NoError(t, r.stop(), "a clean stop needs no server")
}

// A missing durable is answered at once with "no responders", so that asking
// without backoff would be a busy loop.
//
// A row of docs/DELIVERY.md.
func TestMissingDurableIsAskedForWithBackoff(t *testing.T) {
	t.Parallel()
	b, log := setup(t), &book{}
	r := b.run(t, b.config(log.config()), handle(ignore))
	require.NoError(t, b.js.DeleteConsumer(t.Context(), b.declared.Stream.Name, b.declared.Durable))
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	before := r.Stats().Requests
	<-time.After(time.Second)
	require.LessOrEqual(t, r.Stats().Requests-before, uint64(6)) // after 100, 200, 400, 800 ms
	require.LessOrEqual(t, len(log.lines("no messages can be fetched")), 2, "deleted, and then missing")
}

func TestStartWaitsForTheBroker(t *testing.T) {
	t.Parallel()
	server := dvtest.Server(t)
	b := setupOn(t, server.Connect(t).JetStream())
	server.Stop()
	require.Eventually(t, func() bool { return !b.js.Conn().IsConnected() }, soon, tick)
	r := start(t, b.new(t, b.config(), handle(ignore)))
	require.Eventually(t, func() bool { return r.Ready() != nil }, soon, tick)
	server.Restart(t)
	awaitReady(t, r)
}

// A server that answers every request at once, without a message and without an
// error, must not be asked in a loop.
func TestRequestsThatEndAtOnceAreNotRepeatedInALoop(t *testing.T) {
	t.Parallel()
	cfg := validConfig()
	cfg.Logger = slog.New(slog.DiscardHandler)
	c, err := consumer.New(dvtest.NATS(t).JetStream(), &graves{}, cfg, handle(ignore))
	require.NoError(t, err)
	for name, answer := range map[string]error{"empty": nil, "no responders": nats.ErrNoResponders} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				p := consumer.NewPull(c, func(context.Context, int) error {
					asked++
					return answer
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				p.Run(ctx)
				require.Error(t, p.Ready())
				require.Less(t, asked, 25, "every 5 s in the long run")
				require.Greater(t, asked, 10)
			})
		})
	}
}

// Another client takes messages away, and what comes of the same request behind the
// gap is an answer. It does not make the next reset of the durable come at once.
func TestDeliveriesBehindAGapDoNotShortenTheDelay(t *testing.T) {
	t.Parallel()
	cfg := validConfig()
	cfg.Logger = slog.New(slog.DiscardHandler)
	c, err := consumer.New(dvtest.NATS(t).JetStream(), &graves{}, cfg, handle(ignore))
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		asked := 0
		var p consumer.Pull
		p = consumer.NewPull(c, func(ctx context.Context, _ int) error {
			if asked++; asked > 1000 {
				cancel()
			}
			p.Stumble()
			p.Answered()
			return context.Cause(ctx)
		})
		p.Run(ctx)
		require.Less(t, asked, 15)
	})
}

// A request that was open when the connection broke is dead, and the server does
// not say so. It is given up at once, not when its silence is noticed.
func TestReconnectAsksAgainAtOnce(t *testing.T) {
	t.Parallel()
	cfg := validConfig()
	cfg.Logger = slog.New(slog.DiscardHandler)
	c, err := consumer.New(dvtest.NATS(t).JetStream(), &graves{}, cfg, handle(ignore))
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := consumer.NewPull(c, func(ctx context.Context, _ int) error {
			asked++
			<-ctx.Done()
			return context.Cause(ctx)
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go p.Run(ctx)
		synctest.Wait()
		<-time.After(time.Second) // past the look-up's delay
		synctest.Wait()
		require.Equal(t, 1, asked)
		begun := time.Now()
		p.Disconnected()
		p.Reconnected()
		synctest.Wait()
		require.Equal(t, 2, asked)
		require.Equal(t, begun, time.Now(), "at once")
		require.NoError(t, p.Ready())
	})
}

func TestStatusesOfTheServer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		code, text string
		over       bool
		err        error
	}{
		{"100", "Idle Heartbeat", false, nil},
		{"404", "No Messages", true, nil},
		{"408", "Request Timeout", true, nil},
		{"409", "Batch Completed", true, nil},
		{"409", "Consumer Deleted", true, jetstream.ErrConsumerDeleted},
		{"409", "Leadership Change", true, jetstream.ErrConsumerLeadershipChanged},
		{"409", "Server Shutdown", true, jetstream.ErrServerShutdown},
		{"503", "", true, nats.ErrNoResponders},
	} {
		over, err := consumer.Status(row.code, row.text)
		require.Equal(t, row.over, over, "%v", row)
		require.ErrorIs(t, err, row.err, "%v", row)
	}
	over, err := consumer.Status("409", "Exceeded MaxRequestBatch of 1")
	require.True(t, over)
	require.ErrorContains(t, err, "Exceeded MaxRequestBatch of 1")
}
