package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/instance"
	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// margin is what a horizon needs beyond the ages of what can come again: for
// clocks that differ, for handlers that take their time, and for a broker that was
// down for a night.
const margin = 24 * time.Hour

// Bounds of JanitorConfig.
const (
	defaultRewind   = 24 * time.Hour
	defaultInterval = time.Hour
	minInterval     = time.Minute
	maxInterval     = 24 * time.Hour
	maxHorizon      = 10 * 366 * 24 * time.Hour
)

// JanitorConfig tunes a Janitor. The zero value is safe for production.
type JanitorConfig struct {
	// Schema is the PostgreSQL schema that package migrate filled.
	// Default "messaging".
	Schema string

	// Horizon is how long a handled message is remembered, counted from when it
	// was handled: at least the age of the streams, plus Rewind, plus a day, else
	// [NewJanitor] returns a *HorizonError; at most 10 years. Where Horizon, the
	// age of the streams and Rewind add up to 86 days or more, partitions come into
	// use again before all in them is old, and what is old is deleted in batches.
	// Default envelope.DefaultHorizon, 45 days.
	Horizon time.Duration

	// Rewind is how long the services that send the messages keep what they
	// published, and so how much later than its stream's age a message can be
	// published again: the longest outbox.RelayConfig.Retention among them.
	// Default 24 h.
	Rewind time.Duration

	// KeepVersions is how long [Inbox.Newer] remembers the version of a key that
	// nothing newer came for. Afterwards an old message, such as a dead letter that
	// is replayed late, would count as newer. At least Horizon, at most 10 years.
	// Default 0: for ever, a row for each key.
	KeepVersions time.Duration

	// Interval is the time between two looks at the partitions, by whichever
	// replica is first. 1 min to 24 h; default 1 h.
	Interval time.Duration

	// Archive sees messages before they are forgotten, at most 1,000 at a time,
	// and in the order in which they were handled within a partition. They are
	// removed after it returned nil; an error keeps them, shows in Stats and the
	// log, and they come again, as do messages that were archived and not removed
	// because one of them was replayed meanwhile, or in a crash: it must tolerate
	// repeats. It is called by one goroutine of one replica as a rule, must be safe
	// for more, and must return when ctx ends, after 5 min at the latest. No
	// transaction is open meanwhile. The slice is the hook's to keep.
	// Default nil: they are removed without it.
	Archive func(ctx context.Context, messages []ArchivedMessage) error

	// Logger gets a line for each partition that was emptied and for each fault.
	// Default slog.Default().
	Logger *slog.Logger
}

// ArchivedMessage is a row of the inbox that is about to be removed, as
// JanitorConfig.Archive sees it.
type ArchivedMessage struct {
	Consumer  string    // the inbox that handled it, or gave it up
	Source    string    // who gave the id
	MessageID string    // the envelope's id
	HandledAt time.Time // when, by the database's clock
	LetterID  string    // the dead letter it was given up as; "" if it was handled
}

// HorizonError says that a message could come again after it is forgotten, and
// have its effect twice.
type HorizonError struct {
	// Horizon is what was asked for.
	Horizon time.Duration
	// Minimum is the shortest horizon that is safe: StreamAge plus Rewind plus a
	// day.
	Minimum time.Duration
	// StreamAge and Rewind are what it was computed from.
	StreamAge, Rewind time.Duration
}

// Error names the number to use.
func (e *HorizonError) Error() string {
	return fmt.Sprintf("inbox: JanitorConfig.Horizon: %v is too short: streams keep a message for %v, a relay publishes it again for %v, and a day is the margin; use %v or longer, or shorten the streams",
		e.Horizon, e.StreamAge, e.Rewind, e.Minimum)
}

// withDefaults fills what was left zero.
func (c JanitorConfig) withDefaults() JanitorConfig {
	c.Horizon = cmp.Or(c.Horizon, envelope.DefaultHorizon)
	c.Rewind = cmp.Or(c.Rewind, defaultRewind)
	c.Interval = cmp.Or(c.Interval, defaultInterval)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// faults reports everything that is wrong with a configuration whose defaults are
// filled in.
func (c JanitorConfig) faults(streamAge time.Duration) (faults []error) {
	if streamAge <= 0 || streamAge > maxHorizon {
		faults = append(faults, fmt.Errorf("inbox: streamAge: %v is no age of a stream; pass the longest topology.Stream.MaxAge among the streams that are read into this database", streamAge))
	}
	if c.Rewind < 0 || c.Rewind > maxHorizon {
		faults = append(faults, fmt.Errorf("inbox: JanitorConfig.Rewind: %v is out of range; pass the longest outbox.RelayConfig.Retention among the senders", c.Rewind))
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		faults = append(faults, fmt.Errorf("inbox: JanitorConfig.Interval: %v is out of range; use %v to %v", c.Interval, minInterval, maxInterval))
	}
	if c.Horizon > maxHorizon {
		faults = append(faults, fmt.Errorf("inbox: JanitorConfig.Horizon: %v is out of range; use at most %v", c.Horizon, maxHorizon))
	}
	if c.KeepVersions > maxHorizon || c.KeepVersions != 0 && c.KeepVersions < c.Horizon {
		faults = append(faults, fmt.Errorf("inbox: JanitorConfig.KeepVersions: %v is out of range; use 0, for ever, or Horizon to %v", c.KeepVersions, maxHorizon))
	}
	if len(faults) > 0 {
		return faults // the sum below could overflow
	}
	if least := streamAge + c.Rewind + margin; c.Horizon < least {
		faults = append(faults, &HorizonError{Horizon: c.Horizon, Minimum: least, StreamAge: streamAge, Rewind: c.Rewind})
	}
	return faults
}

// NewJanitor returns what cleans the inboxes of one database. All inboxes in a
// schema share the table and therefore the Janitor. streamAge is the longest
// topology.Stream.MaxAge among the streams whose messages they handle; for
// messages that do not come over NATS, how long their senders go on repeating
// them.
//
// NewJanitor does no I/O and reports every fault at once; a horizon that is too
// short is a [*HorizonError].
func NewJanitor(pool *pgxpool.Pool, streamAge time.Duration, cfg JanitorConfig) (*Janitor, error) {
	cfg = cfg.withDefaults()
	faults := cfg.faults(streamAge)
	if pool == nil {
		faults = append(faults, errors.New("inbox: NewJanitor: pool is nil; pass the service's pgxpool.Pool"))
	}
	schema, err := pgschema.Quote(cfg.Schema)
	if err != nil {
		faults = append(faults, fmt.Errorf("inbox: JanitorConfig.Schema: %w", err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	holder := instance.Name()
	return &Janitor{
		pool: pool, cfg: cfg, holder: holder, sql: newSweepStatements(schema),
		log: cfg.Logger.With("component", "inbox.janitor", "holder", holder),
	}, nil
}
