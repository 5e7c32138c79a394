package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Times that are not worth a Config field.
const (
	// cancelGrace is what handlers get to return after their ctx was cancelled.
	cancelGrace = 5 * time.Second
	// flushTimeout bounds one round trip to the broker.
	flushTimeout = 2 * time.Second
	// retryPause is between two tries to reach a broker that does not answer.
	retryPause = 250 * time.Millisecond
)

// Server answers the operations of a service until its Run ends. Ready is safe for
// concurrent use.
type Server struct {
	nc        *nats.Conn
	cfg       ServerConfig
	log       *slog.Logger
	id        string
	endpoints []*endpoint
	places    chan struct{} // holds one for each handler that runs; not a queue
	refused   refusals
	ran       atomic.Bool
	started   time.Time     // set before anybody can ask
	grace     time.Duration // cancelGrace, less in tests

	mu       sync.Mutex
	notReady error
}

// NewServer returns a server over nc, which is the process's one connection
// (natsconn.Conn.NATS). It does no I/O and reports all faults at once. The routes
// are operations of ServerConfig.Service, each version of one at most once.
func NewServer(nc *nats.Conn, cfg ServerConfig, routes ...Route) (*Server, error) {
	cfg = cfg.withDefaults()
	faults := cfg.faults()
	if nc == nil {
		faults = append(faults, errors.New("rpc: connection: is nil; pass natsconn.Conn.NATS()"))
	}
	endpoints, bad := newEndpoints(cfg.Service, routes)
	if faults = append(faults, bad...); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &Server{
		nc: nc, cfg: cfg, log: cfg.Logger.With("service", cfg.Service.String()), id: newID(),
		endpoints: endpoints, places: make(chan struct{}, cfg.Concurrency), notReady: ErrNotRunning, grace: cancelGrace,
	}, nil
}

// Ready returns nil while requests are served, else why they are not: ErrNotRunning,
// or a broker that does not answer. A subscription that the broker's permissions do
// not allow is told by natsconn.Conn.Ready.
func (s *Server) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notReady == nil && !s.nc.IsConnected() {
		return errors.New("rpc: not ready: not connected to the broker")
	}
	return s.notReady
}

func (s *Server) setState(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notReady = err
}

// errStarting is Ready's answer until the broker has confirmed the subscriptions.
var errStarting = errors.New("rpc: not ready: the broker has not confirmed the subscriptions")

// errShutdown is the cause with which handlers are cancelled in the end.
var errShutdown = errors.New("rpc: the server is stopping")

// Run serves until ctx ends and returns nil after a clean stop. A broker that does
// not answer is waited for; Ready says so. A connection that is closed for good
// ends Run with an error.
//
// When ctx ends, new requests go to other replicas, or find no server; those that
// are here already are answered. Run waits up to ServerConfig.DrainTimeout for
// handlers to finish and only then cancels the ctx of those that still run. They
// have 5 s to return; if some do not, Run returns a *DrainError. Run may be called
// once.
//
// Drain or close the connection after Run has returned, not before: handlers that
// still run could not answer.
func (s *Server) Run(ctx context.Context) error {
	if !s.ran.CompareAndSwap(false, true) {
		return ErrAlreadyRun
	}
	s.setState(errStarting)
	defer s.setState(ErrNotRunning)
	s.started = time.Now().UTC()
	// Handlers outlive ctx by the drain.
	work, interrupt := context.WithCancelCause(context.WithoutCancel(ctx))
	defer interrupt(errShutdown)
	var l listeners
	defer l.unsubscribe()
	if err := s.listen(work, &l); err != nil {
		return err
	}
	if s.confirm(ctx) {
		s.setState(nil)
		s.log.Info("rpc: serving", "operations", len(s.endpoints), "instance", s.id)
	}
	var lost error
	select {
	case <-ctx.Done():
	case one := <-l.closed:
		l.closed <- one // stopRequests counts it, too
		lost = fmt.Errorf("rpc: serve: %w", nats.ErrConnectionClosed)
	}
	s.setState(ErrNotRunning)
	return errors.Join(lost, s.drain(&l, interrupt))
}

// listeners are the subscriptions of a running server.
type listeners struct {
	requests  []*nats.Subscription
	discovery []*nats.Subscription
	closed    chan struct{} // a value for each request subscription that is done
}

// listen subscribes to all operations and to discovery. The queue group is the
// service, so that its replicas share the calls.
func (s *Server) listen(work context.Context, l *listeners) error {
	l.closed = make(chan struct{}, len(s.endpoints))
	for _, e := range s.endpoints {
		// The client's limits of what waits for the callback stay as they are (64
		// MiB): the callback hands over or refuses, and never waits.
		sub, err := s.nc.QueueSubscribe(e.subject.String(), s.cfg.Service.String(), func(m *nats.Msg) {
			s.admit(work, e, m)
		})
		if err != nil {
			return fmt.Errorf("rpc: subscribe to %s: %w", e.subject, err)
		}
		sub.SetClosedHandler(func(string) { l.closed <- struct{}{} })
		l.requests = append(l.requests, sub)
	}
	if s.nc.IsClosed() || s.nc.IsDraining() {
		// A subscription that ended before its handler was set tells nobody.
		return fmt.Errorf("rpc: serve: %w", nats.ErrConnectionClosed)
	}
	return s.listenForDiscovery(l)
}

// unsubscribe ends what is left, at once.
func (l *listeners) unsubscribe() {
	for _, sub := range append(l.discovery, l.requests...) {
		_ = sub.Unsubscribe() // an error says that it has ended already
	}
}

// confirm waits until the broker knows the subscriptions: before that, callers on
// other connections are told that there is no server. It reports whether it does.
func (s *Server) confirm(ctx context.Context) bool {
	for ctx.Err() == nil && !s.nc.IsClosed() {
		round, cancel := context.WithTimeout(ctx, flushTimeout)
		err := s.nc.FlushWithContext(round)
		if err == nil {
			cancel()
			return true
		}
		s.setState(fmt.Errorf("%w: %w", errStarting, err))
		cancel()
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
	return false
}

// drain stops the flow of requests, waits for those that are here, and sends what
// they answered.
func (s *Server) drain(l *listeners, interrupt context.CancelCauseFunc) error {
	s.log.Info("rpc: draining", "running", len(s.places))
	for _, sub := range l.discovery {
		_ = sub.Unsubscribe()
	}
	patience, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout)
	defer cancel()
	s.stopRequests(patience, l)
	taken := s.occupy(patience, 0)
	interrupt(errShutdown) // nobody is there, or it is time
	grace, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	taken = s.occupy(grace, taken)
	if left := len(s.places) - taken; left > 0 {
		return &DrainError{Unfinished: left}
	}
	if err := s.nc.FlushTimeout(flushTimeout); err != nil {
		s.log.Warn("rpc: the last replies may not have been sent", "error", err.Error())
	}
	return nil
}

// occupy takes places for good, so that no handler begins, until it has all of them,
// which is when no handler runs any more, or ctx ends. It returns how many it has.
func (s *Server) occupy(ctx context.Context, taken int) int {
	for taken < cap(s.places) {
		select {
		case s.places <- struct{}{}:
			taken++
		case <-ctx.Done():
			return taken
		}
	}
	return taken
}

// stopRequests waits until every request that the broker has sent here was handed
// to a handler or refused, and no more come. Draining needs the broker; without it
// there is nothing to wait for.
func (s *Server) stopRequests(patience context.Context, l *listeners) {
	if !s.nc.IsConnected() {
		return
	}
	for _, sub := range l.requests {
		if sub.Drain() != nil {
			return // the connection is closed, or drains itself
		}
	}
	for range l.requests {
		select {
		case <-l.closed:
		case <-patience.Done():
			return
		}
	}
}

// newID names an instance, as the client library makes unique names.
func newID() string { return nats.NewInbox()[len(nats.InboxPrefix):] }
