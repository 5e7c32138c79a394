package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"codeberg.org/dataverket/messaging/internal/backoff"
	"codeberg.org/dataverket/messaging/internal/sleep"
	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// RelayConfig tunes a Relay. The zero value is safe for production.
type RelayConfig struct {
	// Holder names this instance in the lease and in logs. It must differ
	// between replicas: who comes with the same name takes the lease over.
	// Default: host name, process id and a random suffix.
	Holder string

	// Site is written into the header Dv-Site of every message: the site that
	// publishes (requirement W1). Where the outbox's Set has a Network it must be
	// Set.Site. Default: that; without a Network "", no header.
	Site string

	// Domain is the JetStream domain that must acknowledge; what another one
	// acknowledges is not published. Where the outbox's Set has a Network it must
	// be that of Site. Default: that; without a Network "", any.
	Domain string

	// LeaseTTL is how long a silent leader keeps the lease. Renewed at a third
	// of it. 1 s to 1 min; default 6 s.
	LeaseTTL time.Duration

	// PollInterval is the longest wait before new rows are looked for, when
	// nobody notifies (see Config.PollOnly). It bounds what a missed
	// notification costs. 1 ms to 1 min; default 950 ms, and 100 ms with PollOnly.
	PollInterval time.Duration

	// PageRows bounds the rows of a page, which is what is read in one go; of one
	// stream up to six pages are in memory. 1 to 100,000; default 2,000.
	PageRows int

	// PageBytes bounds the bytes of a page, give or take one message; of one
	// stream up to six pages are in memory. 1 KiB to 1 GiB; default 4 MiB.
	PageBytes int

	// MaxPending bounds the unacknowledged messages per stream. 1 to 100,000;
	// default 1,000.
	MaxPending int

	// MaxParked bounds the keys of a stream that are parked because a message of
	// theirs can never be stored. Beyond that it is probably the stream that does
	// not fit, and it is held back instead. 1 to 100,000; default 100.
	MaxParked int

	// AckTimeout is the wait for an acknowledgement before the message is sent
	// again with the same id. 100 ms to 1 min; default 5 s.
	AckTimeout time.Duration

	// DrainTimeout bounds a graceful stop. 100 ms to 10 min; default 5 s.
	DrainTimeout time.Duration

	// ProbeInterval is how often a stream is asked whether it still holds what
	// it acknowledged; it is also asked after every reconnect and every fault.
	// 10 ms to 10 min; default 30 s.
	ProbeInterval time.Duration

	// Retention is how long published rows stay in the outbox: what a broker lost
	// within this time can be published again, so it must exceed the longest
	// outage of a broker and the age of any backup of one that would be restored.
	// Older rows are deleted once the stream was asked whether it still holds what
	// follows them; the rows of parked keys stay. Rows go an anchor at a time,
	// hence up to an hour later, or a day where they stay longer than two, and the
	// last ones of a stream when newer ones are published. 1 min to 90 d, or
	// negative: rows are never deleted. Default 24 h.
	Retention time.Duration

	// Archive sees published rows before they are deleted, in batches of one
	// stream in ascending order of Seq, at most 1,000 and about PageBytes at a
	// time. They are deleted after it returned nil; an error keeps them, shows in
	// Alarm and the log, and the batch comes again after a growing delay of up to a
	// minute. So does one that was archived and not deleted, as in a crash: it
	// must tolerate repeats. Publishing never waits for it. It is called by the
	// instance that leads, by one goroutine, and must return when ctx ends, after
	// 5 min at the latest; one that does not is left behind. The events are the
	// hook's to keep. Default nil: rows are deleted without it.
	Archive func(ctx context.Context, events []ArchivedEvent) error

	// MaxAge is the alarm for events that wait: while the oldest unpublished event
	// of a stream is older, at two looks in a row, every instance, leader or
	// standby, logs it once and returns a *LagError from Alarm. A leader whose
	// cursor has not moved for as long is not Ready either. Looked at every 10 s,
	// and a second later when it seems exceeded. 1 s to 24 h, or negative: no
	// alarm. Default 1 min.
	MaxAge time.Duration

	// FailFast makes Run return an error if the database or the broker cannot
	// be reached at its start, instead of waiting for it. Default false: wait.
	FailFast bool

	// Logger receives one line per change of state, never a payload.
	// Default slog.Default().
	Logger *slog.Logger

	// MeterProvider receives the metrics, see docs/METRICS.md.
	// Default otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// TracerProvider receives a span for each page of messages that is published,
	// linked with what the messages were made in, see docs/TELEMETRY.md.
	// Default otel.GetTracerProvider().
	TracerProvider trace.TracerProvider
}

// Relay publishes the committed messages of an Outbox to JetStream. Create it
// with NewRelay and call Run once; several instances may run, one leads.
type Relay struct {
	out      *Outbox
	pool     *pgxpool.Pool
	nc       *nats.Conn
	prefix   string // of JetStream's API
	cfg      RelayConfig
	sql      statements
	log      *slog.Logger
	health   *health // what holds messages back
	alarms   *health // what does not
	hooks    hooks
	ran      atomic.Bool
	sizeHint atomic.Int64 // mean size in bytes of the rows read last
	reached  atomic.Bool  // database and broker answered at least once
	leading  atomic.Bool

	anchorEvery time.Duration // between copies of a cursor
	reviseEvery time.Duration // between looks for what came since the term began
	lingerFor   time.Duration // with polls, after saying that it sleeps
	tick        time.Duration // between looks for late answers
	moveEvery   time.Duration // between moves of a cursor in a walk
	buffers     sync.Pool     // of pages, see pageBuffer
	pace        pace          // of retention
	observer    observer
	seen        atomic.Pointer[observation] // the latest
	lag         lag
	metrics     *metrics
	tracer      *telemetry.Tracer

	foreignBatch  int           // rows of another cluster that are gone through at once
	compareWithin time.Duration // bounds the comparison of a tail with the rows
}

// hooks are crash points for tests; nil does nothing.
type hooks struct {
	polled    func()                        // a poll has read its rows
	foreign   func(step string)             // rows of another cluster: what was done last
	published func(stream string, rows int) // every row of a page is acknowledged, the cursor not yet moved
	retained  func()                        // retention has looked at all streams
}

// NewRelay returns the relay of out. It does no I/O and reports every fault at
// once. The relay publishes over the connection of js, which it shares with
// everything else in the process (requirement M1).
func NewRelay(out *Outbox, pool *pgxpool.Pool, js jetstream.JetStream, cfg RelayConfig) (*Relay, error) {
	cfg = cfg.withDefaults(out != nil && out.cfg.PollOnly)
	faults := cfg.faults()
	if out != nil {
		var contradictions []error
		cfg, contradictions = cfg.atSite(out.set)
		faults = append(faults, contradictions...)
	}
	if out == nil {
		faults = append(faults, errors.New("outbox: NewRelay: out is nil; create it with outbox.New"))
	}
	if pool == nil {
		faults = append(faults, errors.New("outbox: NewRelay: pool is nil; create it with pgxpool.New"))
	}
	if js == nil {
		faults = append(faults, errors.New("outbox: NewRelay: js is nil; use natsconn.Conn.JetStream"))
	}
	measured, err := newMetrics(cfg.MeterProvider)
	if err != nil {
		faults = append(faults, fmt.Errorf("outbox: RelayConfig.MeterProvider: %w", err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	log := cfg.Logger.With("component", "outbox.relay", "holder", cfg.Holder)
	if cfg.Site != "" {
		log = log.With("site", cfg.Site)
	}
	return &Relay{
		out: out, pool: pool, nc: js.Conn(), prefix: apiPrefix(js, cfg.Domain), cfg: cfg, log: log,
		sql: newStatements(out.schema),
		health: &health{log: log, began: "relay is held back", over: "relay goes on",
			down: map[string]trouble{partRun: {errNotRunning, time.Now()}}},
		alarms:      &health{log: log, began: "relay alarm", over: "relay alarm is over", down: map[string]trouble{}},
		anchorEvery: time.Second, moveEvery: moveEvery, reviseEvery: reviseEvery, lingerFor: lingerFor, tick: tick, foreignBatch: foreignBatch, compareWithin: compareWithin,
		pace:     paceOf(cfg.Retention),
		observer: newObserver(pool, out.schema),
		lag:      lag{lateness: lateness{bound: cfg.MaxAge}},
		metrics:  measured,
		tracer:   telemetry.NewTracer(cfg.TracerProvider, telemetry.ScopeOutbox),
	}, nil
}

// Run publishes until ctx ends, then stops gracefully: no new page is read,
// what is in flight is acknowledged and recorded within DrainTimeout, and the
// lease is handed over. It returns nil after a clean stop, and ErrDrainTimeout
// if messages in flight had to be abandoned; they are sent again by whoever
// leads next.
//
// An unreachable database or broker is waited for, with growing delays and a
// line in the log; with FailFast it is returned if it is so from the start.
// What waiting cannot heal is always returned: ErrNotMigrated,
// ErrSequenceCache, a closed connection.
func (r *Relay) Run(ctx context.Context) (err error) {
	if !r.ran.CompareAndSwap(false, true) {
		return errors.New("outbox: Relay.Run: called twice; create a new Relay")
	}
	r.health.good(partRun)
	defer func() {
		r.health.bad(partRun, cmp.Or(err, errNotRunning))
	}()
	defer r.observe(ctx)()
	retry := backoff.Policy{Max: 5 * time.Second}
	for failures := 0; ctx.Err() == nil; {
		began := time.Now()
		err := r.term(ctx)
		switch {
		case errors.Is(err, ErrDrainTimeout):
			return fmt.Errorf("outbox: relay: %w", err)
		case err == nil || ctx.Err() != nil:
			continue
		case hopeless(err), r.cfg.FailFast && !r.reached.Load():
			return fmt.Errorf("outbox: relay: %w", err)
		}
		r.blame(err)
		if time.Since(began) > r.cfg.LeaseTTL {
			failures = 0 // it worked for a while
		}
		failures++
		sleep.For(ctx, retry.Delay(failures))
	}
	return nil
}

// blame puts a fault where it belongs. A standby that lost the lease is fine.
func (r *Relay) blame(err error) {
	switch {
	case errors.Is(err, errLeaseLost):
	case errors.Is(err, errNoBroker):
		r.health.bad(partBroker, err)
	default:
		r.health.bad(partDatabase, err)
	}
}

// hopeless tells the faults that no waiting repairs.
func hopeless(err error) bool {
	return errors.Is(err, ErrNotMigrated) || errors.Is(err, ErrSequenceCache) || errors.Is(err, nats.ErrConnectionClosed)
}
