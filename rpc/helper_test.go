package rpc_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
)

const (
	// soon bounds what takes milliseconds.
	soon = 20 * time.Second
	tick = 2 * time.Millisecond
	// patience is the deadline of calls that answer at once.
	patience = 9 * time.Second
)

type getRequest struct {
	ID string `json:"id"`
}

type getReply struct {
	Hostname string `json:"hostname"`
	Note     string `json:"note,omitempty"`
}

type handler = func(context.Context, getRequest) (getReply, error)

var getServer = rpc.MustOperation[getRequest, getReply](rpc.Spec{Service: subject.Maskin, Name: "get_server", Version: 1})

// hello answers with the id.
func hello(_ context.Context, r getRequest) (getReply, error) {
	return getReply{Hostname: "host-" + r.ID}, nil
}

// quiet is a config that logs nowhere.
func quiet(change ...func(*rpc.ServerConfig)) rpc.ServerConfig {
	cfg := rpc.ServerConfig{Service: subject.Maskin, DrainTimeout: soon, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// running is a server whose Run ends with the test.
type running struct {
	*rpc.Server
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
	err    error
}

// stop ends Run and returns its error.
func (r *running) stop() error {
	r.once.Do(func() {
		r.cancel()
		r.err = <-r.done
	})
	return r.err
}

// serve starts a server and waits until it is ready.
func serve(tb testing.TB, nc *nats.Conn, cfg rpc.ServerConfig, routes ...rpc.Route) *running {
	tb.Helper()
	s, err := rpc.NewServer(nc, cfg, routes...)
	require.NoError(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: s, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	tb.Cleanup(func() { _ = r.stop() })
	require.Eventually(tb, func() bool { return s.Ready() == nil }, soon, tick)
	return r
}

// dial makes a client of plattform's.
func dial(tb testing.TB, nc *nats.Conn, change ...func(*rpc.ClientConfig)) *rpc.Client {
	tb.Helper()
	cfg := rpc.ClientConfig{Service: subject.Plattform}
	for _, f := range change {
		f(&cfg)
	}
	c, err := rpc.NewClient(nc, cfg)
	require.NoError(tb, err)
	return c
}

// asking is a ctx with origin and deadline.
func asking(tb testing.TB, timeout time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(envelope.WithOrigin(context.Background(), envelope.NewOrigin("user:ola", "tenant-1")), timeout)
	tb.Cleanup(cancel)
	return ctx
}

// setup is a broker with one server of h, and a client.
func setup(tb testing.TB, h handler, change ...func(*rpc.ServerConfig)) (*running, *rpc.Client) {
	tb.Helper()
	nc := dvtest.NATS(tb).NATS()
	return serve(tb, nc, quiet(change...), rpc.On(getServer, h)), dial(tb, nc)
}

// failure returns the *rpc.Error that err is.
func failure(tb testing.TB, err error) *rpc.Error {
	tb.Helper()
	var e *rpc.Error
	require.ErrorAs(tb, err, &e)
	return e
}
