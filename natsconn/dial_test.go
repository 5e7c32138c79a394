package natsconn_test

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

func TestDialConnectsAndIsReady(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Service: subject.Maskin})
	require.NoError(t, conn.Ready())
	require.True(t, conn.NATS().IsConnected())
	_, err := conn.JetStream().AccountInfo(t.Context())
	require.NoError(t, err)
	require.Contains(t, conn.NATS().Opts.Name, "maskin/")
	require.Equal(t, "_INBOX_maskin", conn.NATS().Opts.InboxPrefix)
}

// A service that is started before its broker must not crash-loop: it waits,
// says so once, and goes on when the broker is there.
func TestDialWaitsForAServerThatIsDown(t *testing.T) {
	t.Parallel()
	var book logBook
	b := stoppedBroker(t)
	type result struct {
		conn *natsconn.Conn
		err  error
	}
	done := make(chan result, 1)
	var attempts countingDialer
	go func() {
		conn, err := natsconn.Dial(t.Context(), natsconn.Config{
			URL: "nats://ola:hemmelig@" + b.url()[len("nats://"):], Logger: book.logger(),
			Options: []nats.Option{nats.SetCustomDialer(&attempts), nats.ReconnectWait(time.Millisecond), nats.ReconnectJitter(0, 0)},
		})
		done <- result{conn, err}
	}()
	require.Eventually(t, func() bool { return attempts.Load() >= 20 }, eventually, time.Millisecond)
	select {
	case r := <-done:
		require.Failf(t, "Dial returned before the server was up", "%v", r.err)
	default:
	}
	b.start(t)
	r := <-done
	require.NoError(t, r.err)
	defer func() { require.NoError(t, r.conn.Drain(context.Background())) }()
	require.NoError(t, r.conn.Ready())

	waiting := book.lines("waiting for the server")
	require.Len(t, waiting, 1, "one line, however many attempts")
	require.Contains(t, waiting[0], b.url()[len("nats://"):])
	require.Contains(t, waiting[0], "FailFast")
	require.Len(t, book.lines("nats: connected"), 1)
	require.Empty(t, book.lines("hemmelig"), "no password in the log")
	require.Empty(t, book.lines("ola"), "no user in the log")
}

// countingDialer counts attempts to connect.
type countingDialer struct{ atomic.Int64 }

func (d *countingDialer) Dial(network, address string) (net.Conn, error) {
	d.Add(1)
	return net.Dial(network, address)
}

func TestDialGivesUpWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	b := stoppedBroker(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := natsconn.Dial(ctx, natsconn.Config{URL: b.url(), Logger: new(logBook).logger()})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	requireReason(t, err, natsconn.NeverConnected)
	require.ErrorContains(t, err, b.url())
	require.ErrorContains(t, err, "start the server")
}

func TestDialGivesUpOnASilentServerWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never says a word
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = natsconn.Dial(ctx, natsconn.Config{
		URL: "nats://" + l.Addr().String(), ConnectTimeout: 500 * time.Millisecond, Logger: new(logBook).logger(),
	})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), 400*time.Millisecond, "the context ends the attempt, not its timeout")
}

func TestFailFastNamesServerAndRemedy(t *testing.T) {
	t.Parallel()
	b := stoppedBroker(t)
	_, err := natsconn.Dial(t.Context(), natsconn.Config{
		URL: "nats://token123@" + b.url()[len("nats://"):], FailFast: true, Logger: new(logBook).logger(),
	})
	require.ErrorIs(t, err, nats.ErrNoServers)
	requireReason(t, err, natsconn.NeverConnected)
	require.ErrorContains(t, err, b.url()[len("nats://"):])
	require.ErrorContains(t, err, "start the server")
	require.NotContains(t, err.Error(), "token123")
}

func TestFailFastStillReconnectsLater(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), FailFast: true, Logger: new(logBook).logger()})
	b.stop()
	awaitNotReady(t, conn)
	b.start(t)
	awaitReady(t, conn)
}

// The client reports an authentication error of the first connect to nobody. It
// must be told to the operator nevertheless, once, and must not end the wait,
// because credentials rotate.
func TestWrongCredentialsAreReportedWhileWaiting(t *testing.T) {
	t.Parallel()
	var book logBook
	b := stoppedBroker(t, func(o *server.Options) { o.Username, o.Password = "maskin", "riktig" })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := natsconn.Dial(ctx, natsconn.Config{
			URL: "nats://maskin:galt@" + b.url()[len("nats://"):], Logger: book.logger(),
		})
		done <- err
	}()
	require.Eventually(t, func() bool { return len(book.lines("waiting for the server")) == 1 }, eventually, 5*time.Millisecond)
	b.start(t)
	require.Eventually(t, func() bool { return len(book.lines("waiting for the server", "Authorization Violation")) > 0 }, eventually, 5*time.Millisecond)
	cancel()
	err := <-done
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, nats.ErrAuthorization)
	require.NotContains(t, err.Error(), "galt")
	require.LessOrEqual(t, len(book.lines("waiting")), 3, "a line for each kind of cause, not for each attempt")
}

func TestMissingCredentialsFileIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "none.creds")
	_, err := natsconn.Dial(t.Context(), natsconn.Config{CredentialsFile: file})
	require.ErrorContains(t, err, "Config.CredentialsFile")
	require.ErrorContains(t, err, file)
}

// In an outage a client that spins takes the processor from everybody and the
// server down again when it comes up.
func TestReconnectAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: b.url(), Logger: new(logBook).logger()})
	require.NoError(t, err)
	defer func() { _ = conn.Drain(context.Background()) }()
	b.stop()

	l, err := net.Listen("tcp", b.url()[len("nats://"):]) // refuses after accepting
	require.NoError(t, err)
	var attempts atomic.Int64
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			_ = c.Close()
		}
	}()
	require.Eventually(t, func() bool { return attempts.Load() >= 1 }, eventually, time.Millisecond)
	window := time.NewTimer(1500 * time.Millisecond)
	<-window.C
	require.NoError(t, l.Close())
	<-accepted
	// 1.5 s hold at most three waits of half a second or more, after the first.
	require.LessOrEqual(t, attempts.Load(), int64(5))
	require.GreaterOrEqual(t, attempts.Load(), int64(2), "and it does go on")
}

func TestConfigFaultsAreReportedTogether(t *testing.T) {
	t.Parallel()
	_, err := natsconn.Dial(t.Context(), natsconn.Config{
		URL:            "http://ola:hemmelig@host:1,nats://",
		Service:        99,
		Name:           "two words",
		InboxPrefix:    "_INBOX.>",
		ConnectTimeout: -1,
		RequestTimeout: -1,
		DrainTimeout:   -1,
		Breaker:        natsconn.Breaker{Failures: -1, CoolDown: -1},
	})
	require.Error(t, err)
	for _, field := range []string{
		"URL", "Service", "Name", "InboxPrefix", "ConnectTimeout", "RequestTimeout", "DrainTimeout", "Breaker.Failures", "Breaker.CoolDown",
	} {
		require.ErrorContains(t, err, "natsconn: Config."+field+": ")
	}
	require.NotContains(t, err.Error(), "hemmelig")
}

func TestConfigAcceptsWhatTheClientAccepts(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"localhost", "localhost:4222", "nats://a:1,nats://b:2", " tls://a , wss://b/ ", "nats://u:p@h:1"} {
		err := natsconn.Validate(natsconn.Config{URL: url})
		require.NoError(t, err, url)
	}
	for _, prefix := range []string{"_INBOX_maskin", "a.b", "$X"} {
		require.NoError(t, natsconn.Validate(natsconn.Config{InboxPrefix: prefix}), prefix)
	}
	for _, prefix := range []string{"a.", ".a", "a..b", "a.*", ">", "a b"} {
		require.Error(t, natsconn.Validate(natsconn.Config{InboxPrefix: prefix}), prefix)
	}
	require.NoError(t, natsconn.Validate(natsconn.Config{}))
}

// Options may not take away what the promises rest on.
func TestOptionsCannotReplaceWhatThePromisesRestOn(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn := dial(t, natsconn.Config{URL: b.url(), Options: []nats.Option{
		nats.MaxReconnects(1), nats.ReconnectBufSize(1 << 20), nats.ErrorHandler(nil), nats.PingInterval(time.Second),
	}})
	opts := conn.NATS().Opts
	require.Equal(t, -1, opts.MaxReconnect)
	require.Equal(t, -1, opts.ReconnectBufSize)
	require.NotNil(t, opts.AsyncErrorCB)
	require.True(t, opts.PermissionErrOnSubscribe)
	require.True(t, opts.IgnoreAuthErrorAbort)
	require.True(t, opts.RetryOnFailedConnect)
	require.Equal(t, time.Second, opts.PingInterval, "the pace may be changed")
}

func TestDefaultsOfTheConnection(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{URL: b.url()})
	require.NoError(t, err)
	defer func() { _ = conn.Drain(context.Background()) }()
	opts := conn.NATS().Opts
	require.Equal(t, 500*time.Millisecond, opts.ReconnectWait)
	require.Equal(t, 250*time.Millisecond, opts.ReconnectJitter)
	require.Equal(t, 10*time.Second, opts.PingInterval)
	require.Equal(t, 2, opts.MaxPingsOut)
	require.Equal(t, 2*time.Second, opts.Timeout)
	require.Equal(t, 5*time.Second, conn.JetStream().Options().DefaultTimeout)
}
