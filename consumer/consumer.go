package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// DeadLetterer keeps the messages that cannot be handled. *dlq.Queue is one.
//
// Both methods are called concurrently, with a ctx that has a deadline. They are
// repeated until they succeed, so each must recognise what it already did.
type DeadLetterer interface {
	// DeadLetter stores f and returns the letter's id once the store has
	// acknowledged it, never before: the original is terminated on its word.
	DeadLetter(ctx context.Context, f *envelope.Failure) (letterID string, err error)
	// Resolve notes that the replay of a letter was handled, or that the effect of
	// its message turned out to be there. It returns nil when
	// the letter is resolved already; an error marked envelope.Permanent says
	// that no retry will resolve it, and the replay is acknowledged then.
	Resolve(ctx context.Context, letterID string, note string) error
}

// Consumer reads one durable and hands its messages to handlers. Make it with
// New and call Run once. Ready, Alarm and Stats are safe for concurrent use and at any
// time.
type Consumer struct {
	js     jetstream.JetStream
	dead   DeadLetterer
	cfg    Config
	log    *slog.Logger
	routes table
	policy policy
	gate   *gate
	crew   *crew
	acks   *acks
	pulls  [2]*pull // main, replay
	lot    *lot     // nil without a Store
	count  counters
	hold   hold
	mass   breaker
	order  *ordered      // nil without an Order
	grace  time.Duration // cancelGrace, shorter in tests

	traces   *telemetry.Processor
	measured *measures
	lookout  *lookout

	beats   *heartbeats
	company company                   // of the handlers that run
	overdue *overdue                  // those that ignore the end of their ctx
	created atomic.Pointer[time.Time] // the stream, see streamCreated

	ran   atomic.Bool
	mu    sync.Mutex
	state error // why Ready fails besides what the pulls say, nil while running
}

// New returns a consumer of cfg.Consumer that hands its messages to the routes
// and what cannot be handled to dead. There is no consumer without a
// DeadLetterer: a message that cannot be handled would have nowhere to go
// (requirement I3).
//
// It does no I/O, starts nothing, and reports every fault at once.
func New(js jetstream.JetStream, dead DeadLetterer, cfg Config, routes ...envelope.Route) (*Consumer, error) {
	cfg = cfg.withDefaults()
	faults := cfg.faults()
	if js == nil {
		faults = append(faults, errors.New("consumer: js: is nil; pass the JetStream context of the process's connection"))
	}
	if dead == nil {
		faults = append(faults, errors.New("consumer: dead: is nil; pass the queue of dlq.Open, since what cannot be handled must go somewhere"))
	}
	faults = append(faults, cfg.orderFaults(dead)...)
	measured, err := newMeasures(cfg.MeterProvider, cfg.Consumer.Stream.Name, cfg.Consumer.Durable)
	if err != nil {
		faults = append(faults, fmt.Errorf("consumer: Config.MeterProvider: %w", err))
	}
	routed, routeFaults := newTable(routes)
	if faults = append(faults, routeFaults...); len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	c := &Consumer{
		js: js, dead: dead, cfg: cfg, routes: routed, gate: newGate(cfg.window(), cfg.Concurrency),
		crew:   newCrew(cfg.window() + cfg.Concurrency), // messages, and their handlers
		log:    cfg.Logger,
		grace:  cancelGrace,
		policy: policy{maxAttempts: cfg.MaxAttempts, maxDelay: cfg.maxDelay(), retry: cfg.retry()},
		state:  ErrNotRunning,
		order:  newOrdered(cfg, dead),
		traces: telemetry.NewProcessor(telemetry.NewTracer(cfg.TracerProvider, telemetry.ScopeConsumer),
			cfg.Consumer.Durable, cfg.Consumer.Stream.Name, cfg.OwnTraces),
		measured: measured,
		// A handler that takes longer than most is none that counts.
		company: company{patience: cfg.Consumer.AckWait, most: cfg.HandlerTimeout + cancelGrace + storeTimeout},
	}
	c.beats = newHeartbeats(cfg.Consumer.AckWait / beats)
	c.overdue = newOverdue(cfg.HandlerTimeout + c.grace)
	c.acks = newAcks(c.cfg.window(), func(m *message) { c.sent(m, m.ack()) })
	c.lookout = &lookout{c: c, least: lookLeast, limit: cfg.Consumer.Stream.MaxAge}
	c.gate.stand(c.order != nil)
	c.hold.log = cfg.Logger.With("durable", cfg.Consumer.Durable)
	c.mass = breaker{after: max(cfg.MassFailure, 0), gate: c.gate, log: c.hold.log, failing: map[string]bool{},
		cut: c.cutFetching}
	for i, d := range c.durables() {
		c.pulls[i] = c.newPull(d)
	}
	if cfg.Store != nil {
		c.lot = newLot(c)
	}
	return c, nil
}

// cutFetching ends the open request, which asked for more than is wanted now. Its
// subscription is left behind by that; with an Order, whose deliveries count by
// subscription, the durable begins again on the next one.
func (c *Consumer) cutFetching() {
	if c.order != nil {
		c.pulls[0].restart(errLimited)
		return
	}
	c.pulls[0].cutShort(errLimited)
}

// durables are the declared one and its replay twin. Replays lie beside the
// service's dead letters on a subject that only this durable's twin reads, so a
// replay reaches no other consumer.
func (c *Consumer) durables() [2]durable {
	declared := c.cfg.Consumer
	return [2]durable{
		{stream: declared.Stream.Name, name: declared.Durable, lane: c.gate.lanes[0]},
		{stream: declared.ReplayStream(), name: declared.ReplayDurable(), lane: c.gate.lanes[1], replay: true},
	}
}

// Ready returns nil while messages are fetched, else why not: Run does not run;
// the connection is down; a durable is missing, not as declared or not served;
// dead letters are refused, so that nothing new but replays is fetched; many
// messages fail and none succeeds, so that one at a time is fetched; parked
// messages cannot be read, or there are too many; every worker is held by a
// handler that ignores the end of its ctx; or, with an Order, the lease is not to
// be had for want of a database, or Order.MaxAhead is reached. An instance that
// stands by is ready. Several reasons
// come joined, those about one durable as *NotReadyError. It asks no server and
// never blocks, so a readiness endpoint may call it at any rate (requirement
// M2).
func (c *Consumer) Ready() error {
	c.mu.Lock()
	state := c.state
	c.mu.Unlock()
	if errors.Is(state, ErrNotRunning) {
		return state
	}
	faults := []error{state, c.hold.ready(), c.mass.ready(), c.hanging(), c.lot.ready(), c.order.ready()}
	for _, p := range c.pulls {
		faults = append(faults, p.ready())
	}
	return errors.Join(faults...)
}

// hanging returns that every worker is held by a handler which ignores its ctx,
// so that nothing is fetched any more, or nil.
func (c *Consumer) hanging() error {
	if n := c.overdue.count.Load(); n >= int64(c.cfg.Concurrency) {
		return &NotReadyError{Err: fmt.Errorf("%d handlers outlast HandlerTimeout and no worker is left; make them watch ctx", n)}
	}
	return nil
}

func (c *Consumer) setState(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = err
}
