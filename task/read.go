package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// Task is what the projection knows of one task. What is not known yet, or does not
// apply, is zero.
type Task struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Version is that of the newest event of the task's life.
	Version int64 `json:"version"`
	// Kind is the type of the command, Resource what it is about, Title for people.
	Kind     string `json:"kind,omitempty"`
	Resource string `json:"resource,omitempty"`
	Title    string `json:"title,omitempty"`
	// Attempt, Percent, Message, Result and Error are as in EventV1, of the newest
	// event.
	Attempt int                `json:"attempt"`
	Percent *int               `json:"percent,omitempty"`
	Message string             `json:"message,omitempty"`
	Result  *envelope.Artifact `json:"result,omitempty"`
	Error   *FailureV1         `json:"error,omitempty"`
	// Cancel is the first request to cancel, nil for none.
	Cancel *CancelV1 `json:"cancel_requested,omitempty"`
	// CreatedBy is who asked for the task.
	CreatedBy     envelope.Actor `json:"created_by,omitempty"`
	TenantID      string         `json:"tenant_id,omitempty"`
	ProjectID     string         `json:"project_id,omitempty"`
	EnvironmentID string         `json:"environment_id,omitempty"`
	DatacenterID  string         `json:"datacenter_id,omitempty"`
	CorrelationID string         `json:"correlation_id"`
	// CreatedAt, StartedAt (first) and FinishedAt (last) are the times of these
	// events, UpdatedAt that of the latest of all.
	CreatedAt  time.Time `json:"created_at,omitzero"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	UpdatedAt  time.Time `json:"updated_at"`
}

// Filter selects tasks; the zero value selects all.
type Filter struct {
	// States are those that may be selected. Default: all.
	States []State
	// Kind, Resource, CorrelationID and TenantID are compared as a whole. Default:
	// any.
	Kind, Resource, CorrelationID, TenantID string
	// Since selects what was updated then or later. Default: any time.
	Since time.Time
	// Limit bounds how many are returned, the latest updated. Default 100.
	Limit int
}

const defaultLimit = 100

// List returns the tasks that f selects, the latest updated first. schema as in
// ProjectionConfig.
func List(ctx context.Context, pool *pgxpool.Pool, schema string, f Filter) ([]Task, error) {
	if f.Limit <= 0 {
		f.Limit = defaultLimit
	}
	return query(ctx, pool, schema, `where ($1::text[] is null or state = any($1)) and ($2 = '' or kind = $2) and ($3 = '' or resource = $3)
and ($4 = '' or correlation_id = $4) and ($5 = '' or tenant_id = $5) and updated_at >= $6
order by updated_at desc, id desc limit $7`, f.States, f.Kind, f.Resource, f.CorrelationID, f.TenantID, f.Since, f.Limit)
}

// Get returns one task. The error matches ErrNotFound if the projection has none of
// that id.
func Get(ctx context.Context, pool *pgxpool.Pool, schema, id string) (Task, error) {
	if _, err := parseID(id); err != nil {
		return Task{}, fmt.Errorf("task: get: %w", err)
	}
	found, err := query(ctx, pool, schema, `where id = $1`, id)
	switch {
	case err != nil:
		return Task{}, err
	case len(found) == 0:
		return Task{}, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return found[0], nil
}

// query reads tasks.
func query(ctx context.Context, pool *pgxpool.Pool, schema, where string, args ...any) ([]Task, error) {
	quoted, err := pgschema.Quote(schema)
	if err != nil {
		return nil, fmt.Errorf("task: schema: %w", err)
	}
	rows, err := pool.Query(ctx, strings.ReplaceAll(selectText, "{{schema}}", quoted)+where, args...)
	if err == nil {
		var found []Task
		if found, err = pgx.CollectRows(rows, scan); err == nil {
			return found, nil
		}
	}
	return nil, explain("read the projection", err)
}

const selectText = `
select id::text, state, version, coalesce(kind, ''), coalesce(resource, ''), coalesce(title, ''), attempt, percent, message, result, error,
  cancel_at is not null, coalesce(cancel_by, ''), coalesce(cancel_reason, ''), coalesce(created_by, ''), coalesce(tenant_id, ''),
  coalesce(project_id, ''), coalesce(environment_id, ''), coalesce(datacenter_id, ''), coalesce(correlation_id, ''),
  created_at, started_at, finished_at, updated_at
from {{schema}}.tasks `

func scan(row pgx.CollectableRow) (Task, error) {
	var t Task
	var asked bool
	var c CancelV1
	var created, started, finished *time.Time
	err := row.Scan(&t.ID, &t.State, &t.Version, &t.Kind, &t.Resource, &t.Title, &t.Attempt, &t.Percent, &t.Message, &t.Result, &t.Error,
		&asked, &c.By, &c.Reason, &t.CreatedBy, &t.TenantID, &t.ProjectID, &t.EnvironmentID, &t.DatacenterID, &t.CorrelationID,
		&created, &started, &finished, &t.UpdatedAt)
	if asked {
		t.Cancel = &c
	}
	t.CreatedAt, t.StartedAt, t.FinishedAt, t.UpdatedAt = utc(created), utc(started), utc(finished), t.UpdatedAt.UTC()
	return t, err
}

func utc(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.UTC()
}

// Entry is one event in the history of a task.
type Entry struct {
	EventID string    `json:"event_id"`
	Verb    Verb      `json:"verb"`
	Source  string    `json:"source"` // the service that said so
	At      time.Time `json:"at"`
	Data    EventV1   `json:"data"`
}

// History returns the events of a task that the projection has seen, in the order of
// their versions, and behind them what stands beside that order, by its time. Progress is not kept:
// the newest is in the Task.
func History(ctx context.Context, pool *pgxpool.Pool, schema, id string) ([]Entry, error) {
	if _, err := parseID(id); err != nil {
		return nil, fmt.Errorf("task: history: %w", err)
	}
	quoted, err := pgschema.Quote(schema)
	if err != nil {
		return nil, fmt.Errorf("task: schema: %w", err)
	}
	rows, err := pool.Query(ctx, strings.ReplaceAll(`select event_id::text, verb, source, occurred_at, data
from {{schema}}.task_history where task_id = $1 order by version = 0, version, occurred_at, event_id`, "{{schema}}", quoted), id)
	if err != nil {
		return nil, explain("read the history of task "+id, err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Entry, err error) {
		var data json.RawMessage
		if err := row.Scan(&e.EventID, &e.Verb, &e.Source, &e.At, &data); err != nil {
			return e, err
		}
		e.At = e.At.UTC()
		return e, json.Unmarshal(data, &e.Data)
	})
	if err != nil {
		return nil, explain("read the history of task "+id, err)
	}
	return all, nil
}

// Forget deletes what nobody has touched since before of tasks that have ended, and
// requests to cancel from before then: in the tables of [Reporter] and [Projection]
// alike, at most limit tasks of each (default 1,000), so call it until it returns 0.
// It returns how many rows of tasks and requests it deleted.
//
// A task that goes on after it was forgotten, such as by the replay of a dead letter,
// counts its versions anew, and a projection that remembers it takes its events for
// old ones: before must be longer ago than anybody replays, which is refused for less
// than envelope.DefaultHorizon.
func Forget(ctx context.Context, pool *pgxpool.Pool, schema string, before time.Time, limit int) (int, error) {
	quoted, err := pgschema.Quote(schema)
	if err != nil {
		return 0, fmt.Errorf("task: schema: %w", err)
	}
	if time.Since(before) < envelope.DefaultHorizon {
		return 0, errors.New("task: forget: before is less than 45 days ago, in which a dead letter may be replayed; go back further")
	}
	if limit <= 0 {
		limit = 1000
	}
	deleted := 0
	for _, text := range forgetTexts {
		var n int
		if err := pool.QueryRow(ctx, strings.ReplaceAll(text, "{{schema}}", quoted), before, limit).Scan(&n); err != nil {
			return deleted, explain("forget old tasks", err)
		}
		deleted += n
	}
	return deleted, nil
}

// forgetTexts is constant: what Forget deletes of each table, and how many rows.
var forgetTexts = []string{
	`with old as (
  select task_id from {{schema}}.task_runs where updated_at < $1 and state in ('succeeded', 'failed', 'cancelled')
   order by updated_at limit $2 for update skip locked
), gone as (delete from {{schema}}.task_runs r using old where r.task_id = old.task_id returning 1)
select count(*) from gone`,
	`with old as (
  select task_id from {{schema}}.task_cancels where noted_at < $1 order by noted_at limit $2 for update skip locked
), gone as (delete from {{schema}}.task_cancels c using old where c.task_id = old.task_id returning 1)
select count(*) from gone`,
	`with old as (
  select id from {{schema}}.tasks where updated_at < $1 and state in ('succeeded', 'failed', 'cancelled')
   order by updated_at limit $2 for update skip locked
), told as (delete from {{schema}}.task_history h using old where h.task_id = old.id),
gone as (delete from {{schema}}.tasks t using old where t.id = old.id returning 1)
select count(*) from gone`,
}
