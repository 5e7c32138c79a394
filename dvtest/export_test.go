package dvtest

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// ClosePool is tested with a pool that is never given back.
var ClosePool = closePool

// ConformIn runs one scenario of Conform.
func ConformIn(tb testing.TB, c Conformance, name string) {
	messages, want := c.baseline(tb)
	for _, s := range scenarios() {
		if s.name == name {
			s.check(tb, &c, messages, want)
			return
		}
	}
	tb.Fatalf("no scenario is called %q", name)
}

// ConformBaseline is what Conform begins with.
func ConformBaseline(tb testing.TB, c Conformance) { c.baseline(tb) }

// KeepSlowConnection has a connection kept whose last write took long, and tells
// whether anybody reads from it then.
func KeepSlowConnection(tb testing.TB) (read bool) {
	tb.Helper()
	f, err := shared()
	require.NoError(tb, err)
	own, slow := &factory{config: f.config.Copy()}, &slowConn{}
	own.config.ConnConfig.DialFunc = func(_ context.Context, network, address string) (_ net.Conn, err error) {
		slow.Conn, err = net.Dial(network, address)
		return slow, err
	}
	require.NoError(tb, own.maintain(tb.Context(), func(conn *pgx.Conn) error {
		slow.late.Store(true)
		_, err := conn.Exec(tb.Context(), "select 1", pgx.QueryExecModeSimpleProtocol)
		return err
	}))
	require.Len(tb, own.idle, 1)
	tb.Cleanup(func() { require.NoError(tb, own.idle[0].Close(context.Background())) })
	return slow.reading.Load() > 0
}

// slowConn is a connection of which one write takes until its answer has been read
// and more is asked for.
type slowConn struct {
	net.Conn
	late           atomic.Bool
	begun, reading atomic.Int64 // reads
}

func (c *slowConn) Read(b []byte) (int, error) {
	c.begun.Add(1)
	c.reading.Add(1)
	defer c.reading.Add(-1)
	return c.Conn.Read(b)
}

func (c *slowConn) Write(b []byte) (int, error) {
	before := c.begun.Load()
	n, err := c.Conn.Write(b)
	if c.late.CompareAndSwap(true, false) {
		for c.begun.Load() < before+2 {
			<-time.After(time.Millisecond)
		}
	}
	return n, err
}
