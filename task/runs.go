package task

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// about is the task that is reported on, as far as the reporter knows it.
type about struct {
	id             string
	kind, resource string
	placement      []envelope.Option
}

// aboutCommand is the task of a command.
func aboutCommand(e *envelope.Envelope) about {
	return about{e.ID, e.Type, e.Subject, []envelope.Option{
		envelope.Project(e.ProjectID), envelope.Environment(e.EnvironmentID), envelope.Datacenter(e.DatacenterID),
	}}
}

// runRow is what is known of a task that this service works on.
type runRow struct {
	state   State
	version int64
	attempt int
	percent *int
	message string
}

// step is one event to be.
type step struct {
	verb Verb
	say  func(*EventV1) // what it says beside the state; may be nil
}

// decision looks at a row and says what happens to its task: nothing, or one event
// after another.
type decision func(runRow) []step

// record carries a decision out in tx: the row is locked, so that the events of a
// task are numbered and enqueued in the order in which their transactions commit.
func (r *Reporter) record(ctx context.Context, tx pgx.Tx, t about, decide decision) error {
	row, err := r.lock(ctx, tx, t.id)
	if err != nil {
		return err
	}
	steps := decide(row)
	if len(steps) == 0 {
		return nil
	}
	drafts := make([]envelope.Draft, 0, len(steps))
	for _, s := range steps {
		e, err := row.take(t, s)
		if err != nil {
			return err
		}
		drafts = append(drafts, types[s.verb].New(t.id, e, t.placement...))
	}
	_, err = tx.Exec(ctx, r.sql.keep, t.id, row.state, row.version, row.attempt, row.percent, row.message)
	if err != nil {
		return explain("keep the state of task "+t.id, err)
	}
	if err := r.out.Enqueue(ctx, tx, drafts...); err != nil {
		return fmt.Errorf("task: report on task %s: %w", t.id, err)
	}
	return nil
}

// take moves the row on by one step and returns the event that says so.
func (row *runRow) take(t about, s step) (EventV1, error) {
	next, err := row.state.Next(s.verb, t.id)
	if err != nil {
		return EventV1{}, err
	}
	row.state, row.version = next, row.version+1
	if s.verb == VerbStarted {
		row.attempt, row.percent, row.message = row.attempt+1, nil, ""
	}
	e := EventV1{
		Version: row.version, Kind: t.kind, Resource: t.resource,
		Attempt: row.attempt, Percent: row.percent, Message: row.message,
	}
	if s.say != nil {
		s.say(&e)
	}
	row.percent, row.message = e.Percent, e.Message
	return e, nil
}

// lock makes the row if there is none, and locks it.
func (r *Reporter) lock(ctx context.Context, tx pgx.Tx, id string) (row runRow, err error) {
	if _, err := parseID(id); err != nil {
		return row, fmt.Errorf("task: report: %w", err)
	}
	var batch pgx.Batch
	batch.Queue(r.sql.open, id)
	batch.Queue(r.sql.lock, id).QueryRow(func(q pgx.Row) error {
		return q.Scan(&row.state, &row.version, &row.attempt, &row.percent, &row.message)
	})
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return row, explain("lock task "+id, err)
	}
	return row, nil
}

// apart records in a transaction of its own.
func (r *Reporter) apart(ctx context.Context, t about, decide decision) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error { return r.record(ctx, tx, t, decide) })
}

// look returns the state of a task, StateUnknown if nothing was reported of it here,
// and the request to cancel it, nil if there is none.
func (r *Reporter) look(ctx context.Context, id string) (State, *CancelV1, error) {
	var state State
	var by, reason *string
	if err := r.pool.QueryRow(ctx, r.sql.look, id).Scan(&state, &by, &reason); err != nil {
		return "", nil, explain("look at task "+id, err)
	}
	if reason == nil {
		return state, nil, nil
	}
	return state, &CancelV1{By: envelope.Actor(*by), Reason: *reason}, nil
}

// runsSQL are the statements about the tasks that this service works on.
type runsSQL struct{ open, lock, keep, look, note string }

func newRunsSQL(schema string) runsSQL {
	fill := func(text string) string { return strings.ReplaceAll(text, "{{schema}}", schema) }
	return runsSQL{
		// A command that is here was queued, whether or not its sender said so; the
		// events behind it begin at the same number either way.
		open: fill(fmt.Sprintf(`insert into {{schema}}.task_runs (task_id, state, version, attempt)
values ($1, '%s', %d, 0) on conflict do nothing`, StateQueued, versionQueued)),
		lock: fill(`select state, version, attempt, percent, message
from {{schema}}.task_runs where task_id = $1 for update`),
		// The time is that of the state, which is what Forget asks for: the column has an
		// index, and progress that changed it would have to change that each time.
		keep: fill(`update {{schema}}.task_runs set state = $2, version = $3, attempt = $4, percent = $5, message = $6,
updated_at = case when state = $2 then updated_at else clock_timestamp() end where task_id = $1`),
		look: fill(`select coalesce(r.state, ''), c.requested_by, c.reason from (values ($1::uuid)) as t (id)
left join {{schema}}.task_runs r on r.task_id = t.id left join {{schema}}.task_cancels c on c.task_id = t.id`),
		note: fill(`insert into {{schema}}.task_cancels (task_id, requested_by, reason) values ($1, $2, $3)
on conflict do nothing` + durable),
	}
}

// durable raises synchronous_commit where it is off: a message must not be
// acknowledged for what a crash of the database takes back.
const durable = `
returning case when current_setting('synchronous_commit') = 'off'
          then set_config('synchronous_commit', 'on', true) end`
