package outbox_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/natsconn"
)

// wire is a network between clients and a server that a test disturbs: it cuts
// connections, holds either direction back, and drops single answers. It reads what
// it carries, which internal/faultlink, a link for bytes, does not.
type wire struct {
	requests gate         // from client to server
	answers  gate         // from server to client
	sent     atomic.Int64 // requests of interest that clients sent, held back or not
	trap     atomic.Bool  // closes the gate of requests before the next of interest
	answered atomic.Int64 // acknowledgements of JetStream that went through
	accepted atomic.Int64 // connections

	listener net.Listener
	dial     func() (net.Conn, error)
	interest []byte // what a request of interest holds
	read     frameReader
	lose     atomic.Pointer[func(answer []byte) bool]
	mu       sync.Mutex
	links    map[*link]struct{}
	running  sync.WaitGroup
}

// frameReader reads what is passed on, or dropped, as a whole. It tells whether
// it may be dropped.
type frameReader func(*bufio.Reader) (frame []byte, droppable bool, err error)

// link is one connection of a client.
type link struct {
	client, server net.Conn
	gone           chan struct{}
	cut            func()
}

// gate is open, or holds back whoever wants to pass.
type gate struct {
	mu     sync.Mutex
	closed chan struct{} // nil: open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
		g.closed = nil
	}
}

// pass returns when the gate is open, or says false when the link is cut before.
func (g *gate) pass(gone <-chan struct{}) bool {
	for {
		g.mu.Lock()
		closed := g.closed
		g.mu.Unlock()
		if closed == nil {
			return true
		}
		select {
		case <-closed:
		case <-gone:
			return false
		}
	}
}

// newWire is a network to the broker at a URL. Its requests of interest are
// messages.
func newWire(t *testing.T, natsURL string) *wire {
	t.Helper()
	address := strings.TrimPrefix(natsURL, "nats://")
	return lay(t, &wire{
		dial:     func() (net.Conn, error) { return net.Dial("tcp", address) },
		interest: []byte("HPUB dv."), read: readOperation,
	})
}

// movesBase is what the statement holds that moves a cursor past a delta.
const movesBase = "set base = $4::pg_snapshot"

// newDatabaseWire is a network to a pool's database. Its requests of interest
// are those that move a cursor past a delta.
func newDatabaseWire(t *testing.T, pool *pgxpool.Pool) *wire {
	t.Helper()
	c := pool.Config().ConnConfig
	network, address := pgconn.NetworkAddress(c.Host, c.Port)
	return lay(t, &wire{
		dial:     func() (net.Conn, error) { return net.Dial(network, address) },
		interest: []byte(movesBase), read: readSome,
	})
}

// lay makes a wire work until the test ends.
func lay(t *testing.T, w *wire) *wire {
	t.Helper()
	var err error
	w.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w.links = map[*link]struct{}{}
	w.running.Go(w.accept)
	t.Cleanup(func() {
		_ = w.listener.Close()
		w.cut()
		w.running.Wait()
	})
	return w
}

// natsURL is the broker's address at the near end.
func (w *wire) natsURL() string { return "nats://" + w.listener.Addr().String() }

// connString is the address of a pool's database at the near end.
func (w *wire) connString(pool *pgxpool.Pool) string {
	c := pool.Config().ConnConfig
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='%s' dbname=%s sslmode=disable",
		w.listener.Addr().(*net.TCPAddr).Port, c.User, c.Password, c.Database)
}

// connect returns b with a connection over the wire, which comes back at once
// after a cut.
func (w *wire) connect(t *testing.T, b bundle) bundle {
	t.Helper()
	conn, err := natsconn.Dial(t.Context(), natsconn.Config{
		URL: w.natsURL(), Options: []nats.Option{nats.ReconnectWait(5 * time.Millisecond), nats.ReconnectJitter(0, 0)},
		Logger: slog.New(slog.DiscardHandler), // a line for each cut would hide the rest
	})
	require.NoError(t, err)
	t.Cleanup(conn.NATS().Close)
	b.js = conn.JetStream()
	return b
}

// cut ends all connections, with all that is under way on them.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		l.cut()
	}
}

// loseAnswers drops the messages to clients that f says yes to.
func (w *wire) loseAnswers(f func(answer []byte) bool) { w.lose.Store(&f) }

// storm cuts the wire after each pause until ctx ends, and returns how often. For
// a moment before, nothing arrives, at the server and at the client in turn: each
// cut takes something along.
func (w *wire) storm(ctx context.Context, pause func() time.Duration) (cuts int) {
	const moment = 25 * time.Millisecond
	for {
		held := &w.requests
		if cuts%2 == 1 {
			held = &w.answers
		}
		select {
		case <-ctx.Done():
			return cuts
		case <-time.After(pause() - moment):
		}
		held.close()
		<-time.After(moment)
		w.cut()
		held.open()
		cuts++
	}
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := w.dial()
		if err != nil {
			_ = client.Close() // the server is down
			continue
		}
		l := &link{client: client, server: server, gone: make(chan struct{})}
		l.cut = sync.OnceFunc(func() {
			close(l.gone)
			_, _ = client.Close(), server.Close()
		})
		w.mu.Lock()
		w.links[l] = struct{}{}
		w.mu.Unlock()
		w.accepted.Add(1)
		under := make(chan []byte, 4096) // what a closed gate holds
		w.running.Go(func() { w.carry(l, func(l *link) { w.readRequests(l, under) }) })
		w.running.Go(func() { w.carry(l, func(l *link) { w.writeRequests(l, under) }) })
		w.running.Go(func() { w.carry(l, w.carryAnswers) })
	}
}

// carry moves a part of a link until either end is gone.
func (w *wire) carry(l *link, move func(*link)) {
	move(l)
	l.cut()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.links, l)
}

// readRequests goes on while the gate is closed: what a client sent is then on
// its way, whatever becomes of the client.
func (w *wire) readRequests(l *link, under chan<- []byte) {
	var before []byte // the end of what was looked at, where a match may begin
	for {
		buffer := make([]byte, 32<<10)
		n, err := l.client.Read(buffer)
		if err != nil {
			return
		}
		seen := append(before, buffer[:n]...)
		matches := bytes.Count(seen, w.interest)
		if matches > 0 && w.trap.CompareAndSwap(true, false) {
			w.requests.close()
		}
		w.sent.Add(int64(matches))
		before = bytes.Clone(seen[max(0, len(seen)-len(w.interest)+1):])
		select {
		case under <- buffer[:n]:
		case <-l.gone:
			return
		}
	}
}

func (w *wire) writeRequests(l *link, under <-chan []byte) {
	for {
		select {
		case chunk := <-under:
			if !w.requests.pass(l.gone) {
				return
			}
			if _, err := l.server.Write(chunk); err != nil {
				return
			}
		case <-l.gone:
			return
		}
	}
}

func (w *wire) carryAnswers(l *link) {
	r := bufio.NewReader(l.server)
	for {
		frame, droppable, err := w.read(r)
		if err != nil || !w.answers.pass(l.gone) {
			return
		}
		if lose := w.lose.Load(); lose != nil && droppable && (*lose)(frame) {
			continue
		}
		if _, err := l.client.Write(frame); err != nil {
			return
		}
		if isPubAck(frame) {
			w.answered.Add(1)
		}
	}
}

// readOperation reads one operation of the NATS protocol as brokers send them. A
// message may be dropped.
func readOperation(r *bufio.Reader) (frame []byte, droppable bool, err error) {
	frame, err = r.ReadBytes('\n')
	fields := strings.Fields(string(frame))
	if err != nil || len(fields) < 4 || fields[0] != "MSG" && fields[0] != "HMSG" {
		return frame, false, err
	}
	size, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return frame, false, err
	}
	head := len(frame)
	frame = append(frame, make([]byte, size+2)...)
	_, err = io.ReadFull(r, frame[head:])
	return frame, true, err
}

// readSome reads what is there, of any protocol.
func readSome(r *bufio.Reader) (frame []byte, droppable bool, err error) {
	if _, err = r.Peek(1); err != nil {
		return nil, false, err
	}
	frame = make([]byte, r.Buffered())
	_, err = io.ReadFull(r, frame)
	return frame, false, err
}

// isPubAck tells the answer to a message from the answers to questions, which
// name their type.
func isPubAck(frame []byte) bool {
	return bytes.Contains(frame, []byte(`{"stream":`)) && !bytes.Contains(frame, []byte(`"type":`))
}
