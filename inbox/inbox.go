package inbox

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/pgschema"
	"codeberg.org/dataverket/messaging/tenant"
)

// Config tunes an Inbox. The zero value is safe for production.
type Config struct {
	// Schema is the PostgreSQL schema that package migrate filled.
	// Default "messaging".
	Schema string
	// TenantSetting is the PostgreSQL setting that policies of row-level security
	// read, such as "app.tenant_id". Every handler's transaction has it set to the
	// tenant of its message, in the round trip of the inbox row, and to "" for a
	// message in platform scope; in Once that a service calls, the origin in ctx
	// tells. See package tenant for the policies. Default "": nothing is set.
	TenantSetting tenant.Setting
	// Logger gets a line when a batch of OnBatch fails and its messages are handled
	// one by one: the error, no payload.
	// Default slog.Default().
	Logger *slog.Logger
}

// Inbox applies effects once for one consumer. Make it with New; it is safe for
// concurrent use.
type Inbox struct {
	pool     *pgxpool.Pool
	consumer string
	sql      [allBuckets]statements // by bucket
	claimAll string                 // of a batch
	newer    string
	attempts attemptsSQL
	parking  parkingSQL
	leases   leaseSQL
	tenants  tenant.Setting // "": rows are not kept apart
	log      *slog.Logger
}

// consumerName is what may stand in the key. It is as narrow as durable names,
// because it usually is one.
var consumerName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// New returns the inbox of one consumer: the name of the handler or group of
// handlers that a message has its effect in once. It is part of the key of every
// row, so it must not change while messages can come again, and two consumers
// of one database must not share it by accident. Names are [a-z][a-z0-9_]*, at
// most 64 bytes; the durable's name is a good one.
//
// New does no I/O and reports every fault at once.
func New(pool *pgxpool.Pool, consumer string, cfg Config) (*Inbox, error) {
	var faults []error
	if pool == nil {
		faults = append(faults, errors.New("inbox: pool: is nil; pass the service's pgxpool.Pool"))
	}
	if !consumerName.MatchString(consumer) {
		faults = append(faults, fmt.Errorf("inbox: consumer: %.80q is no name; use [a-z][a-z0-9_]*, at most 64 bytes, such as the durable's", consumer))
	}
	schema, err := pgschema.Quote(cfg.Schema)
	if err != nil {
		faults = append(faults, fmt.Errorf("inbox: Config.Schema: %w", err))
	}
	if cfg.TenantSetting != "" {
		if err := cfg.TenantSetting.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("inbox: Config.TenantSetting: %w", err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Inbox{
		pool: pool, consumer: consumer, sql: newStatements(schema, cfg.TenantSetting), log: cfg.Logger, tenants: cfg.TenantSetting,
		claimAll: strings.ReplaceAll(claimAllText, "{{schema}}", schema),
		newer:    strings.ReplaceAll(newerText, "{{schema}}", schema),
		attempts: newAttemptsSQL(schema),
		parking:  newParkingSQL(schema),
		leases:   newLeaseSQL(schema),
	}, nil
}
