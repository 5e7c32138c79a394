package faultlink_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/faultlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon bounds what takes milliseconds.
const soon = 20 * time.Second

// echo is a server that sends back what it gets, behind a link.
func echo(t *testing.T) *faultlink.Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	link, err := faultlink.Listen(listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(link.Close)
	return link
}

func dial(t *testing.T, link *faultlink.Link) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", link.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := conn.Write([]byte(text))
	require.NoError(t, err)
}

func requireBack(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	back := make([]byte, len(text))
	_, err := io.ReadFull(conn, back)
	require.NoError(t, err)
	require.Equal(t, text, string(back))
}

func TestACutEndsConnectionsAndRefusesNewOnesUntilTheHeal(t *testing.T) {
	t.Parallel()
	link := echo(t)
	conn := dial(t, link)
	send(t, conn, "one")
	requireBack(t, conn, "one")
	link.Cut()
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = dial(t, link).Read(make([]byte, 1))
	require.Error(t, err, "a connection came up over a cut link")
	link.Heal()
	conn = dial(t, link)
	send(t, conn, "two")
	requireBack(t, conn, "two")
	require.Equal(t, int64(2*len("one")+2*len("two")), link.Passed())
}

func TestABlackHoleKeepsConnectionsAndDeliversAfterTheHeal(t *testing.T) {
	t.Parallel()
	link := echo(t)
	conn := dial(t, link)
	send(t, conn, "one")
	requireBack(t, conn, "one")
	link.BlackHole()
	send(t, conn, "two")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout(), "the connection is gone")
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(soon)))
	link.Heal()
	requireBack(t, conn, "two")
}

func TestLatencyDelaysEachDirection(t *testing.T) {
	t.Parallel()
	link := echo(t)
	link.Latency(100 * time.Millisecond)
	conn := dial(t, link)
	began := time.Now()
	send(t, conn, "one")
	requireBack(t, conn, "one")
	require.GreaterOrEqual(t, time.Since(began), 200*time.Millisecond)
}

func TestAFlapLeavesTheLinkWhole(t *testing.T) {
	t.Parallel()
	link := echo(t)
	conn := dial(t, link)
	send(t, conn, "one")
	requireBack(t, conn, "one")
	link.Flap(t.Context(), 3, 20*time.Millisecond)
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err, "it never was cut")
	conn = dial(t, link)
	send(t, conn, "two")
	requireBack(t, conn, "two")
}
