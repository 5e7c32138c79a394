package natsconn

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Conn is the NATS connection of a process. Make one with Dial, share it, end
// it with Drain. All methods are safe for concurrent use.
type Conn struct {
	nc             *nats.Conn
	js             jetstream.JetStream
	state          *state
	breaker        *breaker
	requestTimeout time.Duration
	drainTimeout   time.Duration
}

func newConn(nc *nats.Conn, cfg Config, st *state) (*Conn, error) {
	js, err := newJetStream(nc, cfg)
	if err != nil {
		return nil, fmt.Errorf("natsconn: dial: create JetStream context: %w", err)
	}
	return &Conn{
		nc: nc, js: js, state: st,
		breaker:        newBreaker(cfg.Breaker, cfg.Logger),
		requestTimeout: cfg.RequestTimeout,
		drainTimeout:   cfg.DrainTimeout,
	}, nil
}

// NATS returns the connection itself. Its handlers belong to this package:
// setting others ends the promises about readiness. End it with Drain, not with
// its own Close.
func (c *Conn) NATS() *nats.Conn { return c.nc }

// JetStream returns the one JetStream context of the process: at most 256
// asynchronous publishes without an answer, each for 5 s, and API calls bounded
// by Config.RequestTimeout where the context has no deadline.
func (c *Conn) JetStream() jetstream.JetStream { return c.js }

// Drain ends the connection in good order: it waits for the answers to
// asynchronous publishes, lets each subscription handle what it has received,
// flushes and closes. Call it last, when consumers and relay have returned.
//
// It returns within Config.DrainTimeout, or earlier when ctx ends, and then the
// connection is closed in any case; an error says that the budget was too
// short, and that unacknowledged messages come again elsewhere. A connection
// that is closed or disconnected has nothing to flush: that is no error. Drain
// may be called again, and then returns nil at once.
func (c *Conn) Drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.drainTimeout,
		fmt.Errorf("budget of %s (Config.DrainTimeout) is used up", c.drainTimeout))
	defer cancel()
	if !c.nc.IsClosed() && c.state.enter(Draining, nil) {
		c.state.log.Info("nats: draining", "url", c.state.url)
	}
	c.awaitAcks(ctx)
	// Any error of the call says that there is nothing to drain: closed
	// already, or not connected and closed by the call.
	_ = c.nc.Drain()
	select {
	case <-c.state.down:
		return nil
	case <-ctx.Done():
	}
	c.nc.Close()
	<-c.state.down
	return fmt.Errorf("natsconn: drain %s: closed before everything was handled: %w", c.state.url, context.Cause(ctx))
}

// awaitAcks waits for the answers to asynchronous publishes before the drain
// takes away the subscription on which they arrive.
func (c *Conn) awaitAcks(ctx context.Context) {
	if !c.nc.IsConnected() {
		return
	}
	select {
	case <-c.js.PublishAsyncComplete():
	case <-c.state.down:
	case <-ctx.Done():
	}
}
