package consumer_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The environment of a replica: its servers, and the AckWait of its durable.
const (
	replicaEnv  = "CONSUMER_TEST_REPLICA"
	natsEnv     = "CONSUMER_TEST_NATS"
	postgresEnv = "CONSUMER_TEST_POSTGRES"
)

// What a replica prints: that it is ready, or was told to stop; and about a message
// that its route was called, its effect is in the open transaction, its route
// returned and the ack is next.
const (
	lineReady    = "ready "
	lineStopping = "stopping "
	lineStart    = "start "
	lineApplied  = "applied "
	lineEnd      = "end "
)

// Where holdHandlers keeps handlers: each place is an advisory lock.
const (
	beforeCommit = 1
	beforeAck    = 2
)

// replicaPace is how long a replica's handler takes, and how long it takes from
// the commit to the ack. Half of the messages in flight are behind their commit.
const replicaPace = 20 * time.Millisecond

func replicaDurable(ackWait time.Duration) topology.Consumer {
	c := crashDurable()
	c.AckWait, c.MaxAckPending = ackWait, 100
	return c
}

// childParts is what a child process connects to.
type childParts struct {
	js    jetstream.JetStream
	pool  *pgxpool.Pool
	in    *inbox.Inbox
	queue *dlq.Queue
}

func openChild(ctx context.Context) (p childParts, err error) {
	nc, err := nats.Connect(os.Getenv(natsEnv))
	if err != nil {
		return p, err
	}
	if p.js, err = jetstream.New(nc); err != nil {
		return p, err
	}
	if p.pool, err = pgxpool.New(ctx, os.Getenv(postgresEnv)); err != nil {
		return p, err
	}
	if p.in, err = inbox.New(p.pool, "plattform__servers", inbox.Config{}); err != nil {
		return p, err
	}
	p.queue, err = dlq.Open(ctx, p.js, subject.Plattform, dlq.Config{})
	return p, err
}

// replicaChild consumes until it is told to stop, and tells what it does.
func replicaChild() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ackWait, err := time.ParseDuration(os.Getenv(replicaEnv))
	if err != nil {
		return err
	}
	p, err := openChild(ctx)
	if err != nil {
		return err
	}
	c, err := consumer.New(p.js, p.queue, consumer.Config{
		Consumer: replicaDurable(ackWait), Store: p.in, Concurrency: 8, Logger: slog.New(slog.DiscardHandler),
	}, told(p.pool, applying(p.in, func(line string) { fmt.Println(line) })))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { fmt.Println(lineStopping) })
	go func() {
		for c.Ready() != nil {
			<-time.After(tick)
		}
		fmt.Println(lineReady)
	}()
	return c.Run(ctx)
}

// applying is a route that writes an effect down, says so, and takes its time: it
// waits for whoever holds the handlers.
func applying(in *inbox.Inbox, say func(line string)) envelope.Route {
	return inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		if _, err := tx.Exec(ctx, `insert into node values ($1)`, m.Data.Hostname); err != nil {
			return err
		}
		say(lineApplied + m.Envelope.Subject)
		_, err := tx.Exec(ctx, passHold, replicaPace.Seconds(), beforeCommit)
		return err
	})
}

// passHold takes its time, and waits at a place where a test holds handlers.
const passHold = `select pg_sleep($1), pg_advisory_xact_lock_shared($2)`

// holdHandlers keeps the handlers of all processes at a place until the function
// that it returns is called.
func holdHandlers(t *testing.T, pool *pgxpool.Pool, place int) (release func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) }) // released already, or failed before
	_, err = tx.Exec(t.Context(), `select pg_advisory_xact_lock($1)`, place)
	require.NoError(t, err)
	return func() { require.NoError(t, tx.Rollback(t.Context())) }
}

// told prints when a route is called and when it has returned, which it delays.
func told(pool *pgxpool.Pool, r envelope.Route) envelope.Route {
	handle := r.Handle
	r.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		fmt.Println(lineStart + d.Envelope.Subject)
		err := handle(ctx, d)
		if err == nil {
			_, _ = pool.Exec(ctx, passHold, replicaPace.Seconds(), beforeAck) // a stop ends it: no verdict
		}
		fmt.Println(lineEnd + d.Envelope.Subject)
		return err
	}
	return r
}

// replicas are a broker and a database that replicas share.
type replicas struct {
	*bundle
	server *dvtest.NATSServer
	pool   *pgxpool.Pool
}

func setupReplicas(t *testing.T, ackWait time.Duration) *replicas {
	t.Helper()
	r := &replicas{server: dvtest.Server(t), pool: dvtest.Postgres(t)}
	r.bundle = setupOn(t, r.server.Connect(t).JetStream(), func(c *topology.Consumer) { *c = replicaDurable(ackWait) })
	_, err := r.pool.Exec(t.Context(), `create table node (host text not null)`)
	require.NoError(t, err)
	return r
}

// requireOnce demands one effect of each of these messages and no other effect.
func requireOnce(t *testing.T, pool *pgxpool.Pool, names []string) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select host from node order by host`)
	require.NoError(t, err)
	hosts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, slices.Sorted(slices.Values(names)), hosts, "effects were lost or doubled")
}

// letters lists the messages that are dead, with their class.
func (r *replicas) letters(t *testing.T) map[string]envelope.Class {
	t.Helper()
	queue, err := dlq.Open(t.Context(), r.js, subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	dead := map[string]envelope.Class{}
	for l, err := range queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		dead[strings.TrimPrefix(l.Resource, "srv-")] = l.Class
	}
	return dead
}

// replica is a consumer in a process of its own.
type replica struct {
	cmd  *exec.Cmd
	name string        // of its connections to the database
	read chan struct{} // closed when all it printed is read

	mu     sync.Mutex
	ready  bool
	counts map[string]int  // lines of each kind
	starts map[string]int  // by message
	open   map[string]bool // messages whose route was called and has not returned
}

// start starts a replica; awaitReady waits for it.
func (r *replicas) start(t *testing.T) *replica {
	t.Helper()
	p := &replica{name: "replica-" + rand.Text(), read: make(chan struct{}), counts: map[string]int{}, starts: map[string]int{}, open: map[string]bool{}}
	p.cmd = exec.Command(os.Args[0], "-test.run=^$")
	p.cmd.Env = append(os.Environ(), replicaEnv+"="+r.declared.AckWait.String(),
		natsEnv+"="+r.server.URL(), postgresEnv+"="+connString(r.pool)+" pool_max_conns=8 application_name="+p.name,
		"GORACE=atexit_sleep_ms=0") // else the race detector waits 1 s at the exit
	p.cmd.Stderr = t.Output()
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go p.listen(out)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has usually ended
		<-p.read
		_ = p.cmd.Wait()
	})
	return p
}

func (p *replica) listen(out io.Reader) {
	defer close(p.read)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		kind, about, _ := strings.Cut(lines.Text(), " ")
		name := strings.TrimPrefix(about, "srv-")
		p.mu.Lock()
		p.counts[kind+" "]++
		switch kind + " " {
		case lineReady:
			p.ready = true
		case lineStart:
			p.starts[name]++
			p.open[name] = true
		case lineEnd:
			delete(p.open, name)
		}
		p.mu.Unlock()
	}
}

func (p *replica) awaitReady(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.ready
	}, soon, tick, "the replica does not become ready")
}

// count is how many lines of a kind it printed.
func (p *replica) count(kind string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[kind]
}

// inFlight lists the messages whose route was called and has not returned.
func (p *replica) inFlight() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.open))
}

// awaitHeld waits until a handler of the process is held at a place. It stays there.
func (p *replica) awaitHeld(t *testing.T, pool *pgxpool.Pool, place int) {
	t.Helper()
	require.Eventually(t, func() bool {
		var held bool
		err := pool.QueryRow(t.Context(), `
select exists (select from pg_locks l join pg_stat_activity a using (pid)
   where l.locktype = 'advisory' and l.objid = $1 and not l.granted and a.datname = current_database() and a.application_name = $2)`,
			place, p.name).Scan(&held)
		return err == nil && held
	}, soon, tick, "it gets no message")
}

func (p *replica) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(s))
}

// freeze stops the process with SIGSTOP, and returns when it stands still: on a
// loaded machine its threads run on for a while.
func (p *replica) freeze(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	require.Eventually(t, func() bool {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(p.cmd.Process.Pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil)
		return err == nil && pid > 0 && status.Stopped()
	}, soon, time.Millisecond, "it does not stop")
}

// wait waits for the end of the process and returns how it ended. All that it
// printed is read then.
func (p *replica) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.read:
		return p.cmd.Wait()
	case <-time.After(soon):
		return errors.New("the replica does not end")
	}
}
