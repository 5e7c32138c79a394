package outbox_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// pooler is a transaction pooler, like PgBouncer's mode "transaction": each
// transaction, and each statement outside of one, goes to the server connection
// that was unused for longest. What a session would keep (prepared statements,
// settings, LISTEN) is discarded after each.
type pooler struct {
	listener     net.Listener
	config       *pgconn.Config
	idle         chan *backend
	transactions atomic.Int64
	listens      atomic.Int64 // LISTEN and UNLISTEN, which cannot work here
	running      sync.WaitGroup
	mu           sync.Mutex
	clients      map[net.Conn]struct{}
}

// backend is a connection to the server.
type backend struct {
	net.Conn
	reader   *bufio.Reader
	settings map[string]string // as the server reported them
}

// startPooler puts a pooler with a number of connections before the database of
// a pool; both end with the test.
func startPooler(t *testing.T, pool *pgxpool.Pool, connections int) *pooler {
	t.Helper()
	config := pool.Config().ConnConfig.Config
	p := &pooler{config: &config, idle: make(chan *backend, connections), clients: map[net.Conn]struct{}{}}
	for range connections {
		b, err := p.dial(t.Context())
		require.NoError(t, err)
		p.idle <- b
	}
	var err error
	p.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.running.Go(p.accept)
	t.Cleanup(p.stop)
	return p
}

// pool returns connections through the pooler, in a mode of pgx that does
// without prepared statements.
func (p *pooler) pool(t *testing.T, mode string) *pgxpool.Pool {
	t.Helper()
	url := fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s sslmode=disable default_query_exec_mode=%s",
		p.listener.Addr().(*net.TCPAddr).Port, p.config.User, p.config.Database, mode)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (p *pooler) dial(ctx context.Context) (*backend, error) {
	conn, err := pgconn.ConnectConfig(ctx, p.config)
	if err != nil {
		return nil, err
	}
	raw, err := conn.Hijack()
	if err != nil {
		return nil, err
	}
	return &backend{raw.Conn, bufio.NewReader(raw.Conn), raw.ParameterStatuses}, nil
}

// stop ends clients first: each gives its server connection back.
func (p *pooler) stop() {
	_ = p.listener.Close()
	p.mu.Lock()
	for client := range p.clients {
		_ = client.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
	close(p.idle)
	for b := range p.idle {
		_ = b.Close()
	}
}

func (p *pooler) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.clients[client] = struct{}{}
		p.mu.Unlock()
		p.running.Go(func() {
			p.serve(client)
			_ = client.Close()
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.clients, client)
		})
	}
}

// serve gives the client a server connection for each transaction.
func (p *pooler) serve(client net.Conn) {
	if err := p.greet(client); err != nil {
		return
	}
	reader := bufio.NewReader(client)
	for {
		message, err := readMessage(reader)
		if err != nil || message[0] == 'X' { // Terminate
			return
		}
		b := <-p.idle
		p.transactions.Add(1)
		err = p.transaction(client, reader, b, message)
		if err == nil {
			err = b.discard()
		}
		if err != nil {
			p.replace(b)
			return
		}
		p.idle <- b
	}
}

// replace ends a connection on which something may be open: the server rolls
// that back.
func (p *pooler) replace(b *backend) {
	_ = b.Close()
	if b, err := p.dial(context.Background()); err == nil {
		p.idle <- b
	}
}

// greet answers the start-up of a client.
func (p *pooler) greet(client net.Conn) error {
	front := pgproto3.NewBackend(client, client)
	if m, err := front.ReceiveStartupMessage(); err != nil {
		return err
	} else if _, ok := m.(*pgproto3.StartupMessage); !ok {
		return fmt.Errorf("%T is not offered", m) // a request to cancel, or for TLS
	}
	b := <-p.idle
	p.idle <- b
	front.Send(&pgproto3.AuthenticationOk{})
	for name, value := range b.settings {
		front.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	front.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	front.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return front.Flush()
}

// transaction passes messages on until the server is in no transaction.
func (p *pooler) transaction(client net.Conn, reader *bufio.Reader, b *backend, message []byte) error {
	for {
		if bytes.Contains(bytes.ToLower(message), []byte("listen ")) {
			p.listens.Add(1)
		}
		if _, err := b.Write(message); err != nil {
			return err
		}
		if message[0] == 'Q' || message[0] == 'S' { // Query, Sync: the server answers, and says where it stands
			status, err := b.answer(client)
			if err != nil || status == 'I' {
				return err
			}
		}
		var err error
		if message, err = readMessage(reader); err != nil {
			return err
		}
	}
}

// answer passes the server's messages on, until it is ready for more.
func (b *backend) answer(client io.Writer) (status byte, err error) {
	for {
		message, err := readMessage(b.reader)
		if err != nil {
			return 0, err
		}
		if _, err := client.Write(message); err != nil {
			return 0, err
		}
		if message[0] == 'Z' { // ReadyForQuery
			return message[5], nil
		}
	}
}

// discard forgets what a session keeps.
func (b *backend) discard() error {
	query, err := (&pgproto3.Query{String: "discard all"}).Encode(nil)
	if err != nil {
		return err
	}
	if _, err := b.Write(query); err != nil {
		return err
	}
	_, err = b.answer(io.Discard)
	return err
}

// readMessage reads a message of either side: a byte for its type, its length
// without that byte, and the rest.
func readMessage(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(5)
	if err != nil {
		return nil, err
	}
	message := make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(r, message)
	return message, err
}
