package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/health"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/rpc"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
	"codeberg.org/dataverket/messaging/topology"
)

// maxLag is how old the oldest unpublished event may be before the API refuses
// requests that would add to it. Handlers of messages are never refused.
const maxLag = 5 * time.Minute

// service is the process: its connections, its addresses, and the parts that run.
type service struct {
	cfg          config
	pool         *pgxpool.Pool
	conn         *natsconn.Conn
	apis, probes net.Listener

	relay                      *outbox.Relay
	janitor                    *inbox.Janitor
	servers, commands, cancels *consumer.Consumer
	calls                      *rpc.Server
	api                        http.Handler
	health                     *health.Health
	stopping                   chan struct{} // closed when the process begins to stop
}

// open connects, brings tables and streams up to date, and makes the parts. It waits
// for a broker that is down. The caller closes what it returns, after an error too.
func open(ctx context.Context, cfg config) (*service, error) {
	s := &service{cfg: cfg, stopping: make(chan struct{})}
	var err error
	if s.apis, err = net.Listen("tcp", cfg.APIAddr); err != nil {
		return s, err
	}
	if s.probes, err = net.Listen("tcp", cfg.ProbeAddr); err != nil {
		return s, err
	}
	if s.pool, err = pgxpool.New(ctx, cfg.DatabaseURL); err != nil {
		return s, err
	}
	if s.conn, err = natsconn.Dial(ctx, natsconn.Config{URL: cfg.NATSURL, Service: subject.Plattform}); err != nil {
		return s, err
	}
	if err := createTables(ctx, s.pool); err != nil {
		return s, err
	}
	if err := topology.Ensure(ctx, s.conn.JetStream(), declared()); err != nil {
		return s, err
	}
	if err := s.makeParts(ctx); err != nil {
		return s, err
	}
	s.health, err = health.New(health.Config{},
		health.Func("process", s.notStopping),
		health.Ping("broker", s.conn), health.Ping("database", s.pool),
		health.Of("relay", s.relay),
		health.Of("servers", s.servers), health.Of("commands", s.commands), health.Of("cancels", s.cancels),
		health.Of("calls", s.calls),
	)
	return s, err
}

// makeParts constructs what runs. Nothing of it does I/O yet but dlq.Open.
func (s *service) makeParts(ctx context.Context) error {
	js := s.conn.JetStream()
	requests, err := outbox.New(declared(), outbox.Config{MaxLag: maxLag})
	if err != nil {
		return err
	}
	out, err := outbox.New(declared(), outbox.Config{}) // for handlers
	if err != nil {
		return err
	}
	// The relay publishes what both of them store; it tells its own how late it is.
	if s.relay, err = outbox.NewRelay(requests, s.pool, js, outbox.RelayConfig{}); err != nil {
		return err
	}
	if s.api, err = newAPI(s.pool, requests, s.cfg.Callers); err != nil {
		return err
	}
	if s.calls, err = rpc.NewServer(s.conn.NATS(), rpc.ServerConfig{
		Service: subject.Plattform, DrainTimeout: s.cfg.StopTimeout,
	}, getNode(s.pool)); err != nil {
		return err
	}
	return s.makeConsumers(ctx, out)
}

// makeConsumers constructs what reads the streams.
func (s *service) makeConsumers(ctx context.Context, out *outbox.Outbox) error {
	js := s.conn.JetStream()
	dead, err := dlq.Open(ctx, js, subject.Plattform, dlq.Config{})
	if err != nil {
		return err
	}
	// One inbox for both durables: it remembers messages, not where they came from.
	in, err := inbox.New(s.pool, "plattform", inbox.Config{})
	if err != nil {
		return err
	}
	reporter, err := task.NewReporter(s.pool, out, task.ReporterConfig{})
	if err != nil {
		return err
	}
	if s.janitor, err = inbox.NewJanitor(s.pool, topology.DefaultCommandAge, inbox.JanitorConfig{}); err != nil {
		return err
	}
	s.servers, err = consumer.New(js, dead, consumer.Config{
		Consumer: serversDurable, Store: in, DrainTimeout: s.cfg.StopTimeout,
	}, servers{out}.routes(in)...)
	if err != nil {
		return err
	}
	s.commands, err = consumer.New(js, dead, consumer.Config{
		Consumer: commandsDurable, Store: in, DrainTimeout: s.cfg.StopTimeout, Concurrency: 4, // each may take long
	}, drainer{out, moveSlowly}.routes(in, reporter)...)
	if err != nil {
		return err
	}
	s.cancels, err = consumer.New(js, dead, consumer.Config{Consumer: cancelsDurable}, []envelope.Route{reporter.Cancels()}...)
	return err
}

// run serves until ctx ends or a part fails, and then stops in the order in which
// work flows: first nothing new comes in, then what came is finished, and the relay,
// which publishes what that left in the outbox, ends after it. What it did not get to is
// committed and goes out with the next leader.
func (s *service) run(ctx context.Context) error {
	go func() { <-ctx.Done(); close(s.stopping) }()
	probes := http.NewServeMux()
	probes.Handle("/readyz", s.health.Ready())
	probes.Handle("/livez", s.health.Live())
	return runStages(ctx,
		stage{
			"api":   s.serveHTTP(s.apis, s.api),
			"calls": s.calls.Run,
		},
		stage{
			"servers":  s.servers.Run,
			"commands": s.commands.Run,
			"cancels":  s.cancels.Run,
			"janitor":  s.janitor.Run,
		},
		stage{"relay": s.relay.Run},
		stage{"probes": s.serveHTTP(s.probes, probes)}, // answers to the last
	)
}

// serveHTTP is a part: an HTTP server that finishes its requests when it stops.
func (s *service) serveHTTP(listener net.Listener, handler http.Handler) part {
	return func(ctx context.Context) error {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		stopped := make(chan error, 1)
		stop := context.AfterFunc(ctx, func() {
			patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StopTimeout)
			defer cancel()
			stopped <- errors.Join(server.Shutdown(patience), server.Close())
		})
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			stop()
			return err
		}
		return <-stopped
	}
}

// notStopping takes the process out of the way of requests when it begins to stop.
func (s *service) notStopping(context.Context) error {
	select {
	case <-s.stopping:
		return errors.New("the process is stopping")
	default:
		return nil
	}
}

// close ends the connections, when nothing runs any more.
func (s *service) close() error {
	var err error
	if s.conn != nil {
		err = s.conn.Drain(context.Background())
	}
	if s.pool != nil {
		s.pool.Close()
	}
	for _, listener := range []net.Listener{s.apis, s.probes} {
		if listener != nil {
			_ = listener.Close() // that it is closed already is no fault
		}
	}
	return err
}
