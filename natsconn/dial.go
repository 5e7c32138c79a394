package natsconn

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// Dial connects and returns the connection. While the server is down it waits,
// says so in one log line, and returns when the server is up or ctx ends; with
// Config.FailFast it returns an error after the first attempt on each server.
// ctx bounds the waiting only, not the life of the connection.
//
// The error holds all faults of cfg at once, or names the servers, the cause
// and the remedy; it then is a *NotReadyError for errors.AsType.
func Dial(ctx context.Context, cfg Config) (*Conn, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := checkCredentials(cfg.CredentialsFile); err != nil {
		return nil, err
	}
	st := newState(cfg)
	nc, err := connect(ctx, cfg, st)
	if err != nil {
		return nil, err
	}
	if err := st.awaitFirst(ctx, nc); err != nil {
		nc.Close()
		return nil, err
	}
	conn, err := newConn(nc, cfg, st)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return conn, nil
}

// checkCredentials looks at the file before the client does, whose attempts
// would fail on it, silently and for ever.
func checkCredentials(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("natsconn: Config.CredentialsFile: %w", err)
	}
	return f.Close()
}

// connect runs the client's connect, which knows no context, beside ctx. If ctx
// ends first the attempt still runs out, for ConnectTimeout at most for each
// server, and its connection is closed.
func connect(ctx context.Context, cfg Config, st *state) (*nats.Conn, error) {
	type result struct {
		nc  *nats.Conn
		err error
	}
	results := make(chan result)
	go func() {
		nc, err := nats.Connect(cfg.URL, natsOptions(cfg, st)...)
		select {
		case results <- result{nc, err}:
		case <-ctx.Done():
			if nc != nil {
				nc.Close()
			}
		}
	}()
	select {
	case r := <-results:
		if r.err != nil {
			return nil, fmt.Errorf("natsconn: dial: %w; %s", st.dialError(r.err), failFastRemedy)
		}
		return r.nc, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("natsconn: dial: %w; %s", st.dialError(context.Cause(ctx)), waitedRemedy)
	}
}

const (
	failFastRemedy = "start the server or correct Config.URL and its credentials; without Config.FailFast, Dial waits for the server"
	waitedRemedy   = "start the server or correct Config.URL and its credentials; give the context more time to wait longer"
)

// awaitFirst waits for the first connect.
func (s *state) awaitFirst(ctx context.Context, nc *nats.Conn) error {
	// An attempt that the server answers with an authentication error is
	// reported to no handler before the first connect, so it is looked up.
	look := time.NewTicker(reconnectWait)
	defer look.Stop()
	for {
		select {
		case <-s.up:
			return nil
		case <-s.down:
			return fmt.Errorf("natsconn: dial: %w", s.dialError(nc.LastError()))
		case <-look.C:
			s.onAttemptFailed(nc, nc.LastError())
		case <-ctx.Done():
			if nc.IsConnected() {
				return nil
			}
			return fmt.Errorf("natsconn: dial: %w: %w; %s", s.dialError(nil), context.Cause(ctx), waitedRemedy)
		}
	}
}

// dialError says that there was never a connection, with err or the cause of
// the last attempt.
func (s *state) dialError(err error) *NotReadyError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.cause
	}
	return &NotReadyError{Reason: NeverConnected, Since: s.since, URL: s.url, Err: err}
}
