package rpc_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/rpc"
)

func TestReplicasShareTheCalls(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	var counts [2]atomic.Int32
	for i := range counts {
		serve(t, broker.Connect(t).NATS(), quiet(), rpc.On(getServer, func(context.Context, getRequest) (getReply, error) {
			counts[i].Add(1)
			return getReply{}, nil
		}))
	}
	client := dial(t, broker.Connect(t).NATS())
	calls := int32(0)
	require.Eventually(t, func() bool {
		_, err := getServer.Call(asking(t, patience), client, getRequest{})
		require.NoError(t, err)
		calls++
		return counts[0].Load() > 5 && counts[1].Load() > 5
	}, soon, time.Microsecond)
	require.Equal(t, calls, counts[0].Load()+counts[1].Load(), "each call is handled once")
}

// One of two replicas stops while calls keep coming: not one of them fails.
func TestDrainUnderLoadFailsNoCall(t *testing.T) {
	t.Parallel()
	broker := dvtest.Server(t)
	var counts [2]atomic.Int32
	var servers [2]*running
	for i := range counts {
		servers[i] = serve(t, broker.Connect(t).NATS(), quiet(), rpc.On(getServer, func(context.Context, getRequest) (getReply, error) {
			counts[i].Add(1)
			return getReply{}, nil
		}))
	}
	const callers = 4
	stop, results := make(chan struct{}), make(chan error, callers)
	for range callers {
		client := dial(t, broker.Connect(t).NATS())
		go func() {
			for {
				select {
				case <-stop:
					results <- nil
					return
				default:
				}
				if _, err := getServer.Call(asking(t, patience), client, getRequest{}); err != nil {
					results <- err
					return
				}
			}
		}()
	}
	require.Eventually(t, func() bool { return counts[0].Load() > 50 && counts[1].Load() > 50 }, soon, tick)
	require.NoError(t, servers[0].stop())
	after := counts[1].Load()
	require.Eventually(t, func() bool { return counts[1].Load() > after+50 }, soon, tick)
	close(stop)
	for range callers {
		require.NoError(t, <-results)
	}
}

func TestDrainFinishesWhatRunsAndTakesNothingNew(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	server, client := setup(t, func(ctx context.Context, _ getRequest) (getReply, error) {
		close(begun)
		<-release
		return getReply{Hostname: "done"}, ctx.Err()
	})
	type result struct {
		reply getReply
		err   error
	}
	results := make(chan result, 1)
	go func() {
		reply, err := getServer.Call(asking(t, patience), client, getRequest{})
		results <- result{reply, err}
	}()
	<-begun
	server.cancel()
	require.Eventually(t, func() bool {
		_, err := getServer.Call(asking(t, patience), client, getRequest{})
		e := failure(t, err) // no server any more, or one that says that it stops
		return e.Code == rpc.CodeUnavailable && e.Local && e.Retryable()
	}, soon, tick)
	require.ErrorIs(t, server.Ready(), rpc.ErrNotRunning)
	close(release)
	require.Equal(t, result{reply: getReply{Hostname: "done"}}, <-results)
	require.NoError(t, server.stop())
}

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	server, client := setup(t, func(ctx context.Context, _ getRequest) (getReply, error) {
		close(begun)
		<-ctx.Done()
		return getReply{}, ctx.Err()
	}, func(c *rpc.ServerConfig) { c.DrainTimeout = time.Millisecond })
	results := make(chan error, 1)
	go func() {
		_, err := getServer.Call(asking(t, patience), client, getRequest{})
		results <- err
	}()
	<-begun
	require.NoError(t, server.stop())
	requireWire(t, <-results, rpc.CodeCanceled, false)
}

// A process that stops may drain its connection before Run is told to end. There is
// then nothing left to wait for but the handlers: Run must not wait out DrainTimeout.
func TestDrainOfTheConnectionEndsRunAtOnce(t *testing.T) {
	t.Parallel()
	nc := dvtest.Server(t).Connect(t).NATS()
	begun, release := make(chan struct{}), make(chan struct{})
	server := serve(t, nc, quiet(func(c *rpc.ServerConfig) { c.DrainTimeout = 3 * soon }),
		rpc.On(getServer, func(context.Context, getRequest) (getReply, error) {
			close(begun)
			<-release
			return getReply{}, nil
		}))
	m := request(`{}`)
	m.Reply = nats.NewInbox()
	require.NoError(t, nc.PublishMsg(m))
	<-begun
	require.NoError(t, nc.Drain())
	require.Eventually(t, func() bool { return server.Ready() != nil }, soon, tick)
	close(release)
	select {
	case err := <-server.done:
		require.ErrorIs(t, err, nats.ErrConnectionClosed)
	case <-time.After(soon):
		require.Fail(t, "Run waits for subscriptions that have ended")
	}
	server.once.Do(func() {})
}

func TestHandlerThatIgnoresItsContextIsLeftBehind(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(release) })
	server, client := setup(t, func(context.Context, getRequest) (getReply, error) {
		close(begun)
		<-release
		return getReply{}, nil
	}, func(c *rpc.ServerConfig) { c.DrainTimeout = time.Millisecond })
	server.SetGrace(time.Millisecond)
	go func() { _, _ = getServer.Call(asking(t, time.Second), client, getRequest{}) }()
	<-begun
	var left *rpc.DrainError
	require.ErrorAs(t, server.stop(), &left)
	require.Equal(t, 1, left.Unfinished)
	require.ErrorContains(t, left, "1 handlers still run")
}
