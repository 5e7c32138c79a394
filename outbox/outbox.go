package outbox

import (
	"errors"
	"fmt"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pgschema"
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

	// LegacyCorrelationHeader also writes the header "correlation-id" for
	// consumers that do not know X-Correlation-Id yet (requirement X1).
	// Default false.
	LegacyCorrelationHeader bool
}

// Outbox stores messages in the transactions of one service. Create it with
// New; it holds no connection and is safe for concurrent use.
type Outbox struct {
	set        topology.Set
	cfg        Config
	schema     string // quoted
	insertOne  string
	insertMany string
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
		insertOne:  insertSQL(insertOneSQL, quoted, !cfg.PollOnly),
		insertMany: insertSQL(insertManySQL, quoted, !cfg.PollOnly),
	}, nil
}
