package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
)

// Environment of a process that is a relay, or a consumer, and nothing else.
const (
	childRole     = "BENCH_CHILD"
	childPostgres = "BENCH_CHILD_POSTGRES"
	childNATS     = "BENCH_CHILD_NATS"
)

// The roles of such a process.
const (
	roleRelay   = "relay"
	roleStalled = "stalled" // a consumer whose handlers never end
)

// usage is what such a process tells of itself. The counts are since its start.
type usage struct {
	Begun         bool  // the relay leads; the consumer has all the messages it may have
	Statements    int64 // sent to the database, the pool's pings included
	Pings         int64 // of these, by the pool before it hands out a connection that rested for a second
	DatabaseDials int64
	BrokerDials   int64
	CPU           time.Duration
	PeakBytes     int64 // resident
}

// counters are filled by the hooks of the two clients.
type counters struct{ statements, pings, databaseDials, brokerDials atomic.Int64 }

// relayChild runs a relay with default settings. It answers each line on
// standard input with its usage, and stops gracefully at the end of the input.
func relayChild() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var c counters
	pool, err := c.pool(ctx, os.Getenv(childPostgres))
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := natsconn.Dial(ctx, natsconn.Config{URL: os.Getenv(childNATS), Logger: silent(),
		Options: []nats.Option{nats.SetCustomDialer(&c)}})
	if err != nil {
		return err
	}
	out, err := newOutbox()
	if err != nil {
		return err
	}
	relay, err := outbox.NewRelay(out, pool, conn.JetStream(), outbox.RelayConfig{Logger: silent()})
	if err != nil {
		return err
	}
	go func() {
		c.answer(os.Stdin, relay.Leading)
		cancel()
	}()
	return relay.Run(ctx)
}

func (c *counters) answer(in io.Reader, begun func() bool) {
	answers := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		cpu, peak := processUsage()
		_ = answers.Encode(usage{begun(), c.statements.Load() + c.pings.Load(), c.pings.Load(),
			c.databaseDials.Load(), c.brokerDials.Load(), cpu, peak})
	}
}

func (c *counters) pool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.Tracer = c
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c.databaseDials.Add(1)
		return dial(ctx, network, address)
	}
	cfg.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { // the default rule, counted
		ping := p.IdleDuration > time.Second
		if ping {
			c.pings.Add(1)
		}
		return ping
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// Dial counts the attempts to reach the broker.
func (c *counters) Dial(network, address string) (net.Conn, error) {
	c.brokerDials.Add(1)
	return net.DialTimeout(network, address, 2*time.Second)
}

// The tracer of pgx: one call per statement, also per statement of a batch.

func (c *counters) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.statements.Add(1)
	return ctx
}

func (c *counters) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *counters) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (c *counters) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {
	c.statements.Add(1)
}

func (c *counters) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// runChild is the whole of a child process.
func runChild(role string) error {
	if role == roleStalled {
		return stalledChild()
	}
	return relayChild()
}

// child is such a process as its parent sees it.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *json.Decoder
}

// startChild starts a relay.
func (b *bench) startChild(db *database) (*child, error) {
	return b.start(roleRelay, childPostgres+"="+db.url)
}

func (b *bench) start(role string, env ...string) (*child, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childRole+"="+role, childNATS+"="+b.nats.URL()), env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &child{cmd, stdin, json.NewDecoder(stdout)}, cmd.Start()
}

func (c *child) usage() (usage, error) {
	var u usage
	if _, err := fmt.Fprintln(c.stdin); err != nil {
		return u, fmt.Errorf("ask the process: %w", err)
	}
	if err := c.lines.Decode(&u); err != nil {
		return u, fmt.Errorf("ask the process: %w", err)
	}
	return u, nil
}

// awaitBegun returns when the process does what it is for.
func (c *child) awaitBegun(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("the process is not at work after 30 s"))
	defer cancel()
	for {
		u, err := c.usage()
		if err != nil || u.Begun {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// during returns what the process used in d.
func (c *child) during(ctx context.Context, d time.Duration) (usage, error) {
	before, err := c.usage()
	if err != nil {
		return usage{}, err
	}
	if err := pause(ctx, d); err != nil {
		return usage{}, err
	}
	after, err := c.usage()
	after.Statements -= before.Statements
	after.Pings -= before.Pings
	after.DatabaseDials -= before.DatabaseDials
	after.BrokerDials -= before.BrokerDials
	after.CPU -= before.CPU
	return after, err
}

// stop stops the process gracefully.
func (c *child) stop() error {
	_ = c.stdin.Close()
	return c.cmd.Wait()
}

// kill sends SIGKILL and returns when the process is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
