package outbox

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pgschema"
	"codeberg.org/dataverket/messaging/internal/telemetry"
	"codeberg.org/dataverket/messaging/topology"
)

// Config tunes an Outbox. The zero value is safe for production.
type Config struct {
	// Schema is the PostgreSQL schema that package migrate filled.
	// Default "messaging".
	Schema string

	// MaxSize bounds one encoded envelope in bytes; a larger one is refused by
	// Enqueue, before the transaction is touched. At most, and by default,
	// envelope.MaxSize (512 KiB).
	MaxSize int

	// PollOnly turns waking by NOTIFY off: Enqueue never notifies, and the relay
	// does not listen. For databases behind a transaction pooler, which has no
	// LISTEN, and for two-phase commit, which refuses NOTIFY. Messages then wait
	// for RelayConfig.PollInterval. Where the pooler does not keep prepared
	// statements either, set pgx's DefaultQueryExecMode to QueryExecModeExec or
	// QueryExecModeSimpleProtocol. Default false.
	PollOnly bool

	// MaxLag holds writers back while the relay is behind: Enqueue returns a
	// *BackpressureError for a stream whose oldest unpublished event is older than
	// this, at two looks a second apart. It costs Enqueue no query: the age is
	// looked at by a running Relay of this Outbox, every 10 s and every second
	// while a stream is late, or by Watch where a process has no relay. Where
	// neither runs, or the database does not answer them for 30 s, nobody is held
	// back. Events that are to be published again count with their age, so a rewind
	// of hours holds writers back until it has caught up. It is meant for requests: in
	// a handler of messages the error counts as an attempt, and may end in a dead
	// letter, so give handlers an Outbox without it. 1 s to 24 h. Default 0: off, an
	// outage becomes lag and never an error.
	MaxLag time.Duration

	// LegacyCorrelationHeader also writes the header "correlation-id" for
	// consumers that do not know X-Correlation-Id yet (requirement X1).
	// Default false.
	LegacyCorrelationHeader bool

	// TracerProvider receives a span for each message that Enqueue makes, see
	// docs/TELEMETRY.md. Default otel.GetTracerProvider().
	TracerProvider trace.TracerProvider
}

// Outbox stores messages in the transactions of one service. Create it with
// New; it holds no connection and is safe for concurrent use.
type Outbox struct {
	set        topology.Set
	cfg        Config
	schema     string            // quoted
	insertOne  map[string]oneSQL // by stream
	glimpses   string            // by this name connections keep theirs
	trustFor   time.Duration
	insertMany string
	brake      *brake
	tracer     *telemetry.Tracer
}

// New returns the outbox of set.Service for the streams declared in set: a
// message whose subject belongs to none of them is refused by Enqueue, because
// the relay could never publish it.
//
// It does no I/O and reports every fault at once.
func New(set topology.Set, cfg Config) (*Outbox, error) {
	var faults []error
	if err := set.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("outbox: topology: %w", err))
	}
	if len(set.Streams) == 0 {
		faults = append(faults, errors.New("outbox: topology: no stream is declared; declare the streams this service publishes to"))
	}
	if cfg.MaxSize < 0 || cfg.MaxSize > envelope.MaxSize {
		faults = append(faults, fmt.Errorf("outbox: Config.MaxSize: %d is out of range; use 1 to %d, or 0 for the default", cfg.MaxSize, envelope.MaxSize))
	}
	if cfg.MaxLag != 0 && (cfg.MaxLag < time.Second || cfg.MaxLag > 24*time.Hour) {
		faults = append(faults, fmt.Errorf("outbox: Config.MaxLag: %v is out of range; use 1s to 24h, or 0 to hold nobody back", cfg.MaxLag))
	}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = envelope.MaxSize
	}
	if cfg.Schema == "" {
		cfg.Schema = pgschema.Default
	}
	quoted, err := pgschema.Quote(cfg.Schema)
	if err != nil {
		faults = append(faults, fmt.Errorf("outbox: Config.Schema: %w", err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &Outbox{
		set: set, cfg: cfg, schema: quoted,
		insertOne:  insertOnes(set, quoted, cfg.PollOnly),
		glimpses:   glimpsesOf(quoted, cfg.PollOnly),
		trustFor:   trustFor,
		insertMany: insertSQL(insertManySQL, quoted, cfg.PollOnly),
		brake:      &brake{bound: cfg.MaxLag},
		tracer:     telemetry.NewTracer(cfg.TracerProvider, telemetry.ScopeOutbox),
	}, nil
}
