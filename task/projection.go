package task

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// ProjectionConfig tunes a Projection. The zero value is safe for production.
type ProjectionConfig struct {
	// Schema is the PostgreSQL schema that package migrate filled.
	// Default "messaging".
	Schema string
}

// Projection keeps the state of every task of the platform in PostgreSQL, as the task
// events tell it (requirement K2). Make it with NewProjection; it is safe for
// concurrent use. Read it with [Get], [List] and [History].
type Projection struct {
	pool *pgxpool.Pool
	sql  string
}

// NewProjection returns a projection into the database of pool. It does no I/O and
// reports every fault at once.
func NewProjection(pool *pgxpool.Pool, cfg ProjectionConfig) (*Projection, error) {
	var faults []error
	if pool == nil {
		faults = append(faults, errors.New("task: pool: is nil; pass the service's pgxpool.Pool"))
	}
	schema, err := pgschema.Quote(cfg.Schema)
	if err != nil {
		faults = append(faults, fmt.Errorf("task: ProjectionConfig.Schema: %w", err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return &Projection{pool: pool, sql: strings.ReplaceAll(projectText, "{{schema}}", schema)}, nil
}

// Routes returns a route for each task event, for a consumer on the stream of the
// task events. An event is one statement. They need no inbox: an event that comes
// again, or late, changes nothing, however late it comes.
func (p *Projection) Routes() []envelope.Route {
	var routes []envelope.Route
	for _, t := range types {
		routes = append(routes, envelope.Route{Type: t.Name(), Version: t.Version(), Handle: func(ctx context.Context, d *envelope.Delivery) error {
			e, err := t.Decode(d.Envelope)
			if err != nil {
				return envelope.Permanent(err)
			}
			return p.apply(ctx, p.pool, envelope.Received[EventV1]{Delivery: d, Data: e})
		}})
	}
	return routes
}

// Apply projects one event in tx, for a handler that does something else with it
// too: inbox.On(in, task.Succeeded, …). ctx and tx are those of the handler.
func (p *Projection) Apply(ctx context.Context, tx pgx.Tx, m envelope.Received[EventV1]) error {
	return p.apply(ctx, tx, m)
}

// execer is a pool or a transaction.
type execer interface {
	Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
}

func (p *Projection) apply(ctx context.Context, db execer, m envelope.Received[EventV1]) error {
	args, err := columnsOf(m.Envelope, m.Data)
	if err != nil {
		return envelope.Permanent(fmt.Errorf("task: project event %s: %w", m.Envelope.ID, err))
	}
	if _, err := db.Exec(ctx, p.sql, args...); err != nil {
		return explain("project event "+m.Envelope.ID, err)
	}
	return nil
}

// columnsOf are the arguments of projectText.
func columnsOf(env *envelope.Envelope, e EventV1) ([]any, error) {
	id, err := parseID(env.Subject)
	if err != nil {
		return nil, err
	}
	verb := Verb(strings.TrimPrefix(env.Type, "task."))
	state := stateOf[verb]
	var finished, created, started, asked *time.Time
	var createdBy, askedBy, why, askedIn *string
	switch at := &env.Time; {
	case state.Ended():
		finished = at
	case verb == VerbCreated:
		created, createdBy = at, optional(string(env.Actor))
	case verb == VerbStarted:
		started = at
	case verb == VerbUpdated && e.Cancel != nil:
		by := string(e.Cancel.By)
		asked, askedBy, why, askedIn = at, &by, &e.Cancel.Reason, &env.ID
	}
	// Foreign numbers are made to fit: one that is absurd must not stop the rest.
	e.Attempt = min(max(e.Attempt, 0), math.MaxInt32)
	if e.Percent != nil {
		e.Percent = percentOf(*e.Percent)
	}
	facts, place := e, *env
	if verb == VerbUpdated {
		// It stands beside the order, and belongs to the workflow, and maybe the tenant,
		// of whoever asks: nothing in it is a fact of the task.
		e.Version, facts, place = 0, EventV1{}, envelope.Envelope{}
	}
	return []any{
		id, state, e.Version, env.ID, e.Attempt, e.Percent, e.Message, e.Result, e.Error, finished,
		optional(facts.Kind), optional(facts.Resource), optional(facts.Title), createdBy,
		optional(place.TenantID), optional(place.ProjectID), optional(place.EnvironmentID), optional(place.DatacenterID),
		optional(place.CorrelationID), created, started, asked, askedIn, askedBy, why, env.Time,
		verb, env.Source.String(), e,
	}, nil
}

// stateOf is constant: the state that an event tells.
var stateOf = map[Verb]State{
	VerbCreated: StateCreated, VerbQueued: StateQueued, VerbStarted: StateStarted, VerbProgress: StateStarted,
	VerbSucceeded: StateSucceeded, VerbFailed: StateFailed, VerbCancelled: StateCancelled, VerbUpdated: StateUnknown,
}

// optional is null for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// projectText merges one event. Each column is a function of the set of events, not of
// the order in which they come, and the same event twice is the same set:
//
//   - What changes is taken as a whole from one of the two rows: a final one first,
//     then the one with the higher version. Versions of one task are unique; the event's
//     id only makes sure that also a producer that counts wrongly has one outcome.
//   - What does not change is the least of what was told; least ignores null.
//   - Of the requests to cancel the earliest counts.
const projectText = `
with noted as (
  insert into {{schema}}.task_history (task_id, event_id, verb, version, source, occurred_at, data)
  select $1, $4, $27, $3, $28, $26, $29 where $27 <> 'progress'
  on conflict do nothing
)
insert into {{schema}}.tasks as t (
  id, state, version, event_id, attempt, percent, message, result, error, finished_at,
  kind, resource, title, created_by, tenant_id, project_id, environment_id, datacenter_id,
  correlation_id, created_at, started_at, cancel_at, cancel_event_id, cancel_by, cancel_reason, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
  $19, $20, $21, $22, $23, $24, $25, $26)
on conflict (id) do update set
  (state, version, event_id, attempt, percent, message, result, error, finished_at) = (
    select w.state, w.version, w.event_id, w.attempt, w.percent, w.message, w.result, w.error, w.finished_at
      from (values
        (t.state, t.version, t.event_id, t.attempt, t.percent, t.message, t.result, t.error, t.finished_at),
        (excluded.state, excluded.version, excluded.event_id, excluded.attempt, excluded.percent,
         excluded.message, excluded.result, excluded.error, excluded.finished_at)
      ) as w (state, version, event_id, attempt, percent, message, result, error, finished_at)
     order by w.state in ('succeeded', 'cancelled') desc, w.version desc, w.event_id desc limit 1),
  (cancel_at, cancel_event_id, cancel_by, cancel_reason) = (
    select w.at, w.id, w.by, w.reason
      from (values
        (t.cancel_at, t.cancel_event_id, t.cancel_by, t.cancel_reason),
        (excluded.cancel_at, excluded.cancel_event_id, excluded.cancel_by, excluded.cancel_reason)
      ) as w (at, id, by, reason)
     order by w.at, w.id limit 1), -- null comes last
  kind = least(t.kind, excluded.kind), resource = least(t.resource, excluded.resource),
  title = least(t.title, excluded.title), created_by = least(t.created_by, excluded.created_by),
  tenant_id = least(t.tenant_id, excluded.tenant_id), project_id = least(t.project_id, excluded.project_id),
  environment_id = least(t.environment_id, excluded.environment_id),
  datacenter_id = least(t.datacenter_id, excluded.datacenter_id),
  correlation_id = least(t.correlation_id, excluded.correlation_id),
  created_at = least(t.created_at, excluded.created_at), started_at = least(t.started_at, excluded.started_at),
  updated_at = greatest(t.updated_at, excluded.updated_at)` + durable
