package consumer

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/bounds"
	"codeberg.org/dataverket/messaging/topology"
)

// Defaults and bounds of a Config (requirement T8).
const (
	// DefaultMaxAttempts is the number of handler starts after which a message
	// becomes a dead letter.
	DefaultMaxAttempts = 20
	// MaxRetryAfter caps the delay that a handler asks for with
	// envelope.RetryAfter where messages cannot be parked: without a Store, and
	// with MaxAckPending 1 and no Order. A delayed message holds one of the durable's
	// MaxAckPending places for all of that time, so a handful of long delays
	// would stop the consumer for everybody.
	MaxRetryAfter = 10 * time.Minute
	// MaxParkedDelay caps it where they can be. It is shorter than every stream's
	// age and the inbox's horizon.
	MaxParkedDelay = 7 * 24 * time.Hour

	defaultParkAfter      = 30 * time.Second
	defaultMaxParked      = 100_000
	defaultMassFailure    = 10
	defaultRetryInitial   = 500 * time.Millisecond
	defaultRetryMax       = 30 * time.Second
	defaultHandlerTimeout = 5 * time.Minute
	defaultDrainTimeout   = 20 * time.Second

	// maxConcurrency bounds memory: so many messages of envelope.MaxSize bytes
	// may be in flight at once.
	maxConcurrency = 1000
)

// Config tunes a Consumer. Only Consumer is required; every other zero value is
// a safe default.
type Config struct {
	// Consumer is the declared durable to read. Required. It must exist: Run
	// looks it up and compares it, topology.Ensure creates it (requirement T9).
	Consumer topology.Consumer

	// Site is the site that this consumer runs at, by its name in
	// topology.Network. With it a message whose Dv-Site is another site's, and that
	// no declared source brought, is a dead letter of class security. What
	// declared sources bring is held against their site also without it.
	// Default "": a platform of one site.
	Site string

	// Concurrency is how many handlers run at once in this process, 1 to the
	// durable's MaxAckPending and at most 1000 (requirement I1). Messages are
	// asked for only when a worker is free, so this also bounds memory; with an
	// Order MaxAckPending does.
	// Default: the durable's MaxAckPending.
	Concurrency int

	// MaxAttempts is how often a message is tried before it becomes a dead
	// letter of class exhausted, 1 to 1000. With a Store handler starts are
	// counted; without one the server's deliveries, which are an upper bound of
	// them: see the package documentation. Default 20.
	MaxAttempts int

	// Store keeps what must outlive the process: pass the *inbox.Inbox of this
	// consumer's handlers. With it attempts are handler starts, a message that
	// kills its process three times from its second delivery on is a dead letter
	// of class crash, an outage of the database spends no attempt, and long delays
	// do not hold the durable's places. Default nil: none of these.
	Store Store

	// ParkAfter is the longest delay for which a message stays with the server;
	// one that is delayed for longer waits in the Store. See the package
	// documentation. 1 ms to 10 min; without a Store, or with MaxAckPending 1 and no
	// Order, nothing is parked. Default 30 s.
	ParkAfter time.Duration

	// MaxParked bounds how many messages of the durable are parked, all replicas
	// together. Each counts what the others did a few seconds ago, so a few more
	// may be. Beyond it a delay is cut to MaxRetryAfter and holds a place, and
	// Ready says so; with an Order, what would be parked behind another message
	// waits in memory and holds a place, too. 1 to 10,000,000. Default 100,000.
	MaxParked int

	// Order keeps the messages of a key in the order of the stream, with exactly
	// one active instance at a time. It needs a Store that is an OrderedStore, as
	// the inbox is. Default nil: messages are handled in parallel, and a retry lets
	// others pass.
	Order *Order

	// MassFailure is how many different messages must fail one after the other,
	// with no success between, for the consumer to slow down to one message at a
	// time, at intervals of 1 s to 30 s, until one succeeds. Dead letters of class
	// decode and security do not count. 2 to 10,000; a negative number turns it
	// off. Default 10.
	MassFailure int

	// RetryInitial is the delay after a message's first failure; each further
	// failure doubles it, up to RetryMax, less a random part of up to 20 %.
	// 1 ms to RetryMax. Default 500 ms.
	RetryInitial time.Duration

	// RetryMax bounds the computed delay. Without a Store, or with MaxAckPending 1 and no
	// Order, a delayed message holds one of the durable's places, so it is short: at most
	// 10 min. Else at most 7 days. Default 30 s.
	RetryMax time.Duration

	// HandlerTimeout ends the ctx of a handler. After it the message is no
	// longer kept in progress either, so that a handler which ignores its ctx
	// cannot hold a message for ever. 1 ms to 24 h. Default 5 min.
	HandlerTimeout time.Duration

	// DrainTimeout is how long Run waits after its ctx ended for handlers to
	// finish before it cancels theirs; they then have 5 s more. 1 ms to 10 min.
	// Default 20 s.
	DrainTimeout time.Duration

	// Logger receives one line per change of state and per failed message, never
	// a payload. Default slog.Default().
	Logger *slog.Logger

	// MeterProvider receives the metrics, see docs/METRICS.md. Where one is set,
	// here or globally, the server is asked for the durable's state every 15 s.
	// Default otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// TracerProvider receives a span for each attempt, see docs/TELEMETRY.md. The
	// handler's ctx carries it. Default otel.GetTracerProvider().
	TracerProvider trace.TracerProvider

	// OwnTraces has each attempt's span begin a trace of its own, which is linked
	// with the one that the message was made in. It is for workflows whose traces
	// would grow without end. Default false: the span is a child of the message's
	// creation, and linked with it.
	OwnTraces bool

	// SettleSpans has a sampled attempt's span get a child for what the server is
	// told of the message: ack, nak or term. No answer is awaited, so that it tells
	// that, and when, and not how long. Default false: the verdict is an attribute
	// of the attempt.
	SettleSpans bool
}

// withDefaults fills what is zero. MaxAckPending and AckWait of the declaration
// have the defaults of package topology.
func (c Config) withDefaults() Config {
	c.Consumer.MaxAckPending = cmp.Or(c.Consumer.MaxAckPending, topology.DefaultMaxAckPending)
	c.Consumer.AckWait = cmp.Or(c.Consumer.AckWait, topology.DefaultAckWait)
	c.Concurrency = cmp.Or(c.Concurrency, min(c.Consumer.MaxAckPending, maxConcurrency))
	c.MaxAttempts = cmp.Or(c.MaxAttempts, DefaultMaxAttempts)
	c.ParkAfter = cmp.Or(c.ParkAfter, defaultParkAfter)
	c.MaxParked = cmp.Or(c.MaxParked, defaultMaxParked)
	c.MassFailure = cmp.Or(c.MassFailure, defaultMassFailure)
	c.RetryMax = cmp.Or(c.RetryMax, defaultRetryMax)
	c.RetryInitial = cmp.Or(c.RetryInitial, min(defaultRetryInitial, max(c.RetryMax, time.Millisecond)))
	c.HandlerTimeout = cmp.Or(c.HandlerTimeout, defaultHandlerTimeout)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, defaultDrainTimeout)
	c.Order = c.Order.withDefaults()
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// faults returns everything that is wrong with a Config whose defaults are
// filled in.
func (c Config) faults() []error {
	return append(c.declarationFaults(), c.boundFaults()...)
}

// declarationFaults checks that the durable is declared. What the declaration
// says is for topology.Set.Validate to judge.
func (c Config) declarationFaults() []error {
	var faults []error
	if c.Consumer.Durable == "" {
		faults = append(faults, errors.New("consumer: Config.Consumer.Durable: is empty; declare the durable, named with topology.DurableFrom or topology.DurableFor"))
	} else if !c.Consumer.Service().Valid() {
		faults = append(faults, fmt.Errorf("consumer: Config.Consumer.Durable: %.80q does not begin with the consuming service; name it with topology.DurableFrom or topology.DurableFor", c.Consumer.Durable))
	}
	if c.Consumer.Stream.Name == "" {
		faults = append(faults, errors.New("consumer: Config.Consumer.Stream: is not declared; take it from topology.Events or topology.Commands"))
	}
	if class := c.Consumer.Stream.Class; class == topology.ClassDeadLetters || class == topology.ClassDeadLetterOps {
		faults = append(faults, fmt.Errorf("consumer: Config.Consumer.Stream: %.80s holds dead letters, and there is no dead letter of a dead letter; read them with package dlq", c.Consumer.Stream.Name))
	}
	return faults
}

// boundFaults checks the numbers.
func (c Config) boundFaults() []error {
	var faults []error
	if c.MassFailure == 1 || c.MassFailure > 10_000 {
		faults = append(faults, fmt.Errorf("consumer: Config.MassFailure: %d is out of range; use 2 to 10000, or a negative number to turn it off", c.MassFailure))
	}
	return append(faults, bounds.Check("consumer: Config.",
		bounds.Of("Concurrency", c.Concurrency, 1, min(c.Consumer.MaxAckPending, maxConcurrency),
			"the durable's MaxAckPending, at most 1000: workers beyond it would never get a message"),
		bounds.Of("MaxAttempts", c.MaxAttempts, 1, 1000, "the server never gives up by itself, so the library must"),
		bounds.Of("RetryInitial", c.RetryInitial, time.Millisecond, c.RetryMax,
			"the upper bound is RetryMax: a shorter delay would burn all attempts in an instant"),
		bounds.Of("RetryMax", c.RetryMax, time.Millisecond, c.maxDelay(),
			"a delayed message holds one of the durable's MaxAckPending places, unless there is a Store to park it in and MaxAckPending is not 1"),
		bounds.Of("ParkAfter", c.ParkAfter, time.Millisecond, MaxRetryAfter,
			"until then a delayed message holds one of the durable's MaxAckPending places"),
		bounds.Of("MaxParked", c.MaxParked, 1, 10_000_000, "the table must stay bounded"),
		bounds.Of("HandlerTimeout", c.HandlerTimeout, time.Millisecond, 24*time.Hour, "longer work belongs to a task"),
		bounds.Of("DrainTimeout", c.DrainTimeout, time.Millisecond, 10*time.Minute,
			"stay below what the orchestrator waits before it kills the process"),
	)...)
}

// retry returns the delays between attempts.
func (c Config) retry() backoff.Policy {
	return backoff.Policy{Initial: c.RetryInitial, Max: c.RetryMax}
}
