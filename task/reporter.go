package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// ReporterConfig tunes a Reporter. The zero value is safe for production.
type ReporterConfig struct {
	// Schema is the PostgreSQL schema that package migrate filled.
	// Default "messaging".
	Schema string
	// Interval is how often a running handler's task is looked after: progress is
	// published once in it at most, and a request to cancel is seen within it. 1 ms
	// to 1 min. Default 1 s.
	Interval time.Duration
	// Logger gets a line where something that is not the end of a task could not be
	// reported: the error, no data. Default slog.Default().
	Logger *slog.Logger
}

// Bounds of ReporterConfig.
const (
	defaultInterval = time.Second
	minInterval     = time.Millisecond
	maxInterval     = time.Minute
)

// Reporter tells the platform what becomes of the tasks that a service works on. It
// keeps their states in the service's own database and publishes through its outbox.
// Make it with NewReporter, bind handlers with [On], and route requests to cancel to
// it with [Reporter.Cancels]. It is safe for concurrent use.
type Reporter struct {
	pool     *pgxpool.Pool
	out      Enqueuer
	sql      runsSQL
	interval time.Duration
	log      *slog.Logger
}

// NewReporter returns a reporter for the service whose outbox out is. pool is the
// database of that outbox and of the handlers' inbox. Beside each handler that runs a
// further connection of it is taken for a moment, at its start and once in Interval; no
// handler waits for that.
//
// It does no I/O and reports every fault at once.
func NewReporter(pool *pgxpool.Pool, out Enqueuer, cfg ReporterConfig) (*Reporter, error) {
	var faults []error
	if pool == nil {
		faults = append(faults, errors.New("task: pool: is nil; pass the service's pgxpool.Pool"))
	}
	if out == nil {
		faults = append(faults, errors.New("task: out: is nil; pass the service's *outbox.Outbox"))
	}
	schema, err := pgschema.Quote(cfg.Schema)
	if err != nil {
		faults = append(faults, fmt.Errorf("task: ReporterConfig.Schema: %w", err))
	}
	cfg.Interval = cmp.Or(cfg.Interval, defaultInterval)
	if cfg.Interval < minInterval || cfg.Interval > maxInterval {
		faults = append(faults, fmt.Errorf("task: ReporterConfig.Interval: %v is out of range; use %v to %v, or 0 for the default", cfg.Interval, minInterval, maxInterval))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Reporter{pool: pool, out: out, sql: newRunsSQL(schema), interval: cfg.Interval, log: cfg.Logger}, nil
}

// Cancels is the route by which handlers hear of requests to cancel. Give it to a
// consumer of the service's own on the stream of the task events, filtered to
// subject.Exactly(task.Updated.Subject()); it keeps requests for the tasks of other
// services too, until [Forget] drops them. It bears repeats and needs no inbox.
func (r *Reporter) Cancels() envelope.Route {
	return envelope.Route{Type: Updated.Name(), Version: Updated.Version(), Handle: func(ctx context.Context, d *envelope.Delivery) error {
		e, err := Updated.Decode(d.Envelope)
		if err != nil {
			return envelope.Permanent(err)
		}
		id, err := parseID(d.Envelope.Subject)
		if err != nil {
			return envelope.Permanent(fmt.Errorf("task: take a request to cancel: %w", err))
		}
		if e.Cancel == nil {
			return nil // some other news
		}
		by, reason := oneLine(string(e.Cancel.By), maxMessage), oneLine(e.Cancel.Reason, maxMessage)
		if _, err := r.pool.Exec(ctx, r.sql.note, id, by, reason); err != nil {
			return explain("note a request to cancel", err)
		}
		return nil
	}}
}

// CancelRequested returns who asked to cancel a task, and whether anybody did. A
// handler need not ask, its ctx ends; the later steps of a task that was left open
// do.
func (r *Reporter) CancelRequested(ctx context.Context, id string) (CancelV1, bool, error) {
	if _, err := parseID(id); err != nil {
		return CancelV1{}, false, fmt.Errorf("task: %w", err)
	}
	_, c, err := r.look(ctx, id)
	if c == nil {
		return CancelV1{}, false, err
	}
	return *c, true, err
}

// The methods below are for tasks that their handler left open (see
// [Run.LeaveOpen]): a later step of the same service, such as the handler of an event
// that tells the outcome, reports in its own transaction. ctx carries the origin. An
// event that cannot follow is a [*TransitionError], and nothing is published.

// Progress publishes how far a task is: percent, 0 to 100 or negative for unknown,
// and a message for people. It is not rate-limited.
func (r *Reporter) Progress(ctx context.Context, tx pgx.Tx, id string, percent int, message string) error {
	return r.step(ctx, tx, id, VerbProgress, func(e *EventV1) {
		e.Percent, e.Message = percentOf(percent), oneLine(message, maxMessage)
	})
}

// Succeed ends a task with success. result refers to what it made, nil for nothing.
func (r *Reporter) Succeed(ctx context.Context, tx pgx.Tx, id string, result *envelope.Artifact) error {
	return r.step(ctx, tx, id, VerbSucceeded, func(e *EventV1) { e.Result = result })
}

// Fail ends a task with a failure: a code for programs, which may be empty, and a
// text for people.
func (r *Reporter) Fail(ctx context.Context, tx pgx.Tx, id, code, text string) error {
	return r.step(ctx, tx, id, VerbFailed, func(e *EventV1) { e.Error = handlerFailure(code, text) })
}

// Cancelled ends a task because of a request to cancel it.
func (r *Reporter) Cancelled(ctx context.Context, tx pgx.Tx, id string, c CancelV1) error {
	return r.step(ctx, tx, id, VerbCancelled, func(e *EventV1) { e.Cancel = &c })
}

func (r *Reporter) step(ctx context.Context, tx pgx.Tx, id string, v Verb, say func(*EventV1)) error {
	return r.record(ctx, tx, about{id: id}, func(runRow) []step { return []step{{verb: v, say: say}} })
}

// handlerFailure is a failure that is no dead letter.
func handlerFailure(code, text string) *FailureV1 {
	return &FailureV1{Class: ClassHandler, Code: oneLine(code, maxCode), Text: oneLine(text, maxError)}
}

// percentOf is nil for what nobody knows.
func percentOf(percent int) *int {
	if percent < 0 {
		return nil
	}
	percent = min(percent, 100)
	return &percent
}
