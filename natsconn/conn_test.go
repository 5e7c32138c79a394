package natsconn_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/natsconn"
)

func TestServerRestartIsNotReadyThenReadyAgain(t *testing.T) {
	t.Parallel()
	var book logBook
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Logger: book.logger()})
	require.NoError(t, conn.Ready())

	b.stop()
	awaitNotReady(t, conn)
	require.Eventually(t, func() bool { return len(book.lines("nats: disconnected")) == 1 }, eventually, time.Millisecond)
	notReady := requireReason(t, conn.Ready(), natsconn.Disconnected)
	require.WithinDuration(t, time.Now(), notReady.Since, eventually)
	require.Contains(t, notReady.Error(), b.url())
	require.Contains(t, notReady.Error(), "since")

	b.start(t)
	awaitReady(t, conn)
	require.Eventually(t, func() bool { return len(book.lines("nats: reconnected")) == 1 }, eventually, time.Millisecond)
	_, err := conn.JetStream().AccountInfo(t.Context())
	require.NoError(t, err)
	require.Len(t, book.lines("nats: disconnected"), 1, "one line for each change of state")
	require.LessOrEqual(t, len(book.lines("cannot reconnect yet")), 2, "none for each attempt")
}

// With the client's default of 8 MiB the publish would succeed here, and be
// sent, or lost, at some later time.
func TestPublishWhileDisconnectedFailsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Logger: new(logBook).logger()})
	b.stop()
	awaitNotReady(t, conn)
	start := time.Now()
	require.ErrorIs(t, conn.NATS().Publish("dv.maskin.evt.server.provisioned", []byte("x")), nats.ErrReconnectBufExceeded)
	_, err := conn.JetStream().Publish(t.Context(), "dv.maskin.evt.server.provisioned", []byte("x"), jetstream.WithRetryAttempts(0))
	require.ErrorIs(t, err, nats.ErrReconnectBufExceeded)
	require.Less(t, time.Since(start), time.Second)
}

// A lost answer without a disconnect must not hang the relay for ever, as it
// does with the client's default.
func TestAsynchronousPublishEndsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url()})
	_, err := conn.NATS().Subscribe("nobody.answers", func(*nats.Msg) {})
	require.NoError(t, err)
	future, err := conn.JetStream().PublishAsync("nobody.answers", nil)
	require.NoError(t, err)
	select {
	case err := <-future.Err():
		require.ErrorIs(t, err, jetstream.ErrAsyncPublishTimeout)
	case <-time.After(eventually):
		require.Fail(t, "the publish hangs")
	}
}

func TestReadyOnNilSaysNeverConnected(t *testing.T) {
	t.Parallel()
	var pointer atomic.Pointer[natsconn.Conn]
	requireReason(t, pointer.Load().Ready(), natsconn.NeverConnected)
	require.ErrorContains(t, pointer.Load().Ready(), "never connected")
}

func TestPingAsksTheServer(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Logger: new(logBook).logger()})
	require.NoError(t, conn.Ping(t.Context()))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, conn.Ping(ended), context.Canceled)
	b.stop()
	awaitNotReady(t, conn)
	requireReason(t, conn.Ping(t.Context()), natsconn.Disconnected)
	requireReason(t, (*natsconn.Conn)(nil).Ping(t.Context()), natsconn.NeverConnected)
}

func TestDrainHandlesWhatWasReceived(t *testing.T) {
	t.Parallel()
	var book logBook
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Logger: book.logger()})
	other := dial(t, natsconn.Config{URL: b.url()})
	var handled atomic.Int64
	first, gate := make(chan struct{}), make(chan struct{})
	_, err := conn.NATS().Subscribe("work", func(*nats.Msg) {
		if handled.Add(1) == 1 {
			close(first)
			<-gate
		}
	})
	require.NoError(t, err)
	require.NoError(t, conn.NATS().Flush())
	for range 20 {
		require.NoError(t, other.NATS().Publish("work", nil))
	}
	require.NoError(t, other.NATS().Flush())
	<-first
	require.NoError(t, conn.NATS().Flush(), "everything has arrived at the client")

	drained := make(chan error, 1)
	go func() { drained <- conn.Drain(context.Background()) }()
	require.Eventually(t, func() bool { return len(book.lines("nats: draining")) == 1 && conn.NATS().IsDraining() }, eventually, time.Millisecond)
	requireReason(t, conn.Ready(), natsconn.Draining)
	close(gate)
	require.NoError(t, <-drained)
	require.Equal(t, int64(20), handled.Load())
	requireReason(t, conn.Ready(), natsconn.Closed)
	require.Len(t, book.lines("nats: closed"), 1)
	require.Empty(t, book.lines("nats: disconnected"), "a drain is no outage")
	require.NoError(t, conn.Drain(context.Background()), "again is no error")
}

func TestDrainWaitsForAsynchronousPublishes(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url()})
	js := conn.JetStream()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WORK", Subjects: []string{"work"}})
	require.NoError(t, err)
	var futures []jetstream.PubAckFuture
	for range 200 {
		f, err := js.PublishAsync("work", []byte("x"))
		require.NoError(t, err)
		futures = append(futures, f)
	}
	require.NoError(t, conn.Drain(t.Context()))
	for i, f := range futures {
		select {
		case <-f.Ok():
		default:
			require.Failf(t, "publish without its answer", "number %d", i)
		}
	}
}

// stuck makes conn have a handler that does not return before the test ends.
func stuck(t *testing.T, conn *natsconn.Conn) {
	t.Helper()
	gate, running := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(gate) })
	_, err := conn.NATS().Subscribe("work", func(*nats.Msg) { close(running); <-gate })
	require.NoError(t, err)
	require.NoError(t, conn.NATS().Publish("work", nil))
	<-running
}

func TestDrainEndsWithinItsBudget(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), DrainTimeout: 100 * time.Millisecond})
	stuck(t, conn)
	err := conn.Drain(context.Background())
	require.ErrorContains(t, err, "Config.DrainTimeout")
	require.True(t, conn.NATS().IsClosed())
}

func TestDrainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), DrainTimeout: time.Hour})
	stuck(t, conn)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, conn.Drain(ctx), context.Canceled)
	require.True(t, conn.NATS().IsClosed())
}

func TestDrainWhileDisconnectedClosesAtOnce(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Logger: new(logBook).logger()})
	b.stop()
	awaitNotReady(t, conn)
	require.NoError(t, conn.Drain(t.Context()))
	requireReason(t, conn.Ready(), natsconn.Closed)
}

// restricted allows the user maskin its own events and JetStream, nothing else.
func restricted(o *server.Options) {
	allow := []string{"dv.maskin.evt.>", "$JS.API.INFO"}
	o.Users = []*server.User{{Username: "maskin", Password: "pw", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: allow},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_maskin.>"}},
	}}, {Username: "ny", Password: "pw"}}
}

// A denied publish is a timeout to its caller and the reason arrives elsewhere:
// an operator who sees only the timeout looks in the wrong place for hours.
func TestPermissionViolationNamesTheSubject(t *testing.T) {
	t.Parallel()
	var book logBook
	b := newBroker(t, restricted)
	conn := dial(t, natsconn.Config{
		URL: b.url(), InboxPrefix: "_INBOX_maskin", Logger: book.logger(),
		RequestTimeout: 300 * time.Millisecond, Options: []nats.Option{nats.UserInfo("maskin", "pw")},
	})
	require.NoError(t, conn.Ready())
	err := conn.Do(t.Context(), func(ctx context.Context) error {
		_, err := conn.JetStream().Publish(ctx, "dv.nett.evt.port.opened", nil)
		return err
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, nats.ErrPermissionViolation, "Do joins the reason to the timeout")
	require.ErrorContains(t, err, "Config.RequestTimeout")

	notReady := requireReason(t, conn.Ready(), natsconn.PermissionDenied)
	require.ErrorIs(t, notReady, nats.ErrPermissionViolation)
	require.Len(t, notReady.Denied, 1)
	require.Equal(t, natsconn.OperationPublish, notReady.Denied[0].Operation)
	require.Equal(t, "dv.nett.evt.port.opened", notReady.Denied[0].Subject)
	require.ErrorContains(t, notReady, `publish to subject "dv.nett.evt.port.opened"`)

	_, err = conn.NATS().SubscribeSync("dv.nett.evt.>")
	require.NoError(t, err)
	require.NoError(t, conn.NATS().Publish("dv.nett.evt.port.opened", nil))
	require.Eventually(t, func() bool {
		n := requireReason(t, conn.Ready(), natsconn.PermissionDenied)
		return len(n.Denied) == 2 && n.Denied[0].Count == 2
	}, eventually, time.Millisecond)
	require.ErrorContains(t, conn.Ready(), `subscribe to subject "dv.nett.evt.>"`)
	require.Len(t, book.lines("permission violation"), 2, "one line for each subject")
}

func TestPermissionViolationEndsWithAReconnect(t *testing.T) {
	t.Parallel()
	allowed := false
	b := newBroker(t, restricted, func(o *server.Options) {
		if allowed {
			o.Users[0].Permissions = nil
		}
	})
	conn := dial(t, natsconn.Config{
		URL: b.url(), Logger: new(logBook).logger(), Options: []nats.Option{nats.UserInfo("maskin", "pw")},
	})
	require.NoError(t, conn.NATS().Publish("dv.nett.evt.port.opened", nil))
	require.Eventually(t, func() bool { return conn.Ready() != nil }, eventually, time.Millisecond)
	allowed = true
	b.start(t)
	awaitReady(t, conn)
}

// Generated subjects, such as inboxes, may be denied without end.
func TestRememberedViolationsAreBounded(t *testing.T) {
	t.Parallel()
	var book logBook
	b := newBroker(t, restricted)
	conn := dial(t, natsconn.Config{
		URL: b.url(), Logger: book.logger(), Options: []nats.Option{nats.UserInfo("maskin", "pw")},
	})
	for range 100 {
		require.NoError(t, conn.NATS().Publish("denied."+nats.NewInbox(), nil))
	}
	require.NoError(t, conn.NATS().Publish("dv.maskin.evt.server.provisioned", nil))
	require.NoError(t, conn.NATS().Flush())
	require.Eventually(t, func() bool { return len(book.lines("permission violation")) == 16 }, eventually, time.Millisecond)
	require.Len(t, requireReason(t, conn.Ready(), natsconn.PermissionDenied).Denied, 16)
}

// The server closes a client for good whose protocol it finds at fault, and the
// client does not reconnect then. The reason must be told.
func TestConnectionClosedForGoodSaysWhy(t *testing.T) {
	t.Parallel()
	var book logBook
	b := newBroker(t, func(o *server.Options) { o.MaxControlLine = 512 })
	conn := dial(t, natsconn.Config{URL: b.url(), Logger: book.logger()})
	_ = conn.NATS().Publish("a."+strings.Repeat("x", 2048), nil)
	_ = conn.NATS().Flush()
	require.Eventually(t, func() bool { return len(book.lines("nats: closed for good")) == 1 }, eventually, time.Millisecond)
	closed := requireReason(t, conn.Ready(), natsconn.Closed)
	require.ErrorContains(t, closed, "aximum control line")
	require.ErrorContains(t, closed, "dial again")
	require.NoError(t, conn.Drain(t.Context()))
}

func TestConnectionClosedByHandSaysSo(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Logger: new(logBook).logger()})
	conn.NATS().Close()
	requireReason(t, conn.Ready(), natsconn.Closed)
	require.NoError(t, conn.Drain(t.Context()))
}
