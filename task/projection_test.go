package task_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
)

// the is constant: the id of the task of these tests.
const the = "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01"

// did is an event of a history: its type and what it says.
type did struct {
	t envelope.Type[task.EventV1]
	e task.EventV1
}

// v is an event with its version and attempt.
func v(t envelope.Type[task.EventV1], version int64, attempt int) did {
	return did{t, task.EventV1{Version: version, Attempt: attempt, Kind: provision.Name(), Resource: "srv-1"}}
}

func (d did) saying(change func(*task.EventV1)) did {
	change(&d.e)
	return d
}

func percent(n int) func(*task.EventV1) {
	return func(e *task.EventV1) { e.Percent, e.Message = &n, fmt.Sprintf("%d done", n) }
}

func asked(why string) did {
	return did{task.Updated, task.EventV1{Cancel: &task.CancelV1{By: "user:kari", Reason: why}}}
}

// histories is constant: lives of a task, in order.
var histories = map[string][]did{
	"as it should be": {
		v(task.Created, 1, 0).saying(func(e *task.EventV1) { e.Title = "Provision db1" }), v(task.Queued, 2, 0), v(task.Started, 3, 1),
		v(task.Progress, 4, 1).saying(percent(50)),
		v(task.Succeeded, 5, 1).saying(func(e *task.EventV1) { e.Result = &envelope.Artifact{ObjectID: "image-1"} }),
	},
	"failed, replayed": {
		v(task.Queued, 2, 0), v(task.Started, 3, 1),
		v(task.Failed, 4, 1).saying(func(e *task.EventV1) { e.Error = &task.FailureV1{Class: envelope.ClassPoison, Text: "rack is dark"} }),
		v(task.Started, 5, 2), v(task.Succeeded, 6, 2),
	},
	"tried again in vain": {
		v(task.Queued, 2, 0), v(task.Started, 3, 1), v(task.Progress, 4, 1).saying(percent(90)),
		v(task.Queued, 5, 1).saying(func(e *task.EventV1) { e.Error = &task.FailureV1{Text: "no answer"} }),
		v(task.Failed, 6, 1).saying(func(e *task.EventV1) { e.Error = &task.FailureV1{Class: envelope.ClassExhausted, Text: "no answer"} }),
	},
	"cancelled": {
		v(task.Queued, 2, 0), asked("wrong rack"), v(task.Started, 3, 1), asked("again"),
		v(task.Cancelled, 4, 1).saying(func(e *task.EventV1) { e.Cancel = &task.CancelV1{By: "user:kari", Reason: "wrong rack"} }),
	},
	"the process died": {
		v(task.Queued, 2, 0), v(task.Started, 3, 1), v(task.Progress, 4, 1).saying(percent(80)),
		v(task.Started, 5, 2), v(task.Progress, 6, 2).saying(percent(10)),
	},
	"nobody opened it": {v(task.Started, 3, 1), asked("x"), v(task.Cancelled, 4, 1)},
}

// stored makes the messages of a history, a second apart.
func stored(t testing.TB, history []did) []envelope.Received[task.EventV1] {
	t.Helper()
	begin := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	var all []envelope.Received[task.EventV1]
	for i, d := range history {
		m, err := envelope.New(request(t), subject.Maskin, d.t.New(the, d.e))
		require.NoError(t, err)
		m.Envelope.Time = begin.Add(time.Duration(i) * time.Second)
		m.Envelope.CorrelationID = "corr-1"
		// Ids tell nothing about the order: of two services, neither knows the other's.
		m.Envelope.ID = fmt.Sprintf("%s%02d", the[:len(the)-2], 50-i)
		all = append(all, envelope.Received[task.EventV1]{Delivery: delivery(m), Data: d.e})
	}
	return all
}

// projected applies events in a transaction that it takes back, and returns all that
// the projection knows then.
func projected(t testing.TB, w *worker, p *task.Projection, all ...envelope.Received[task.EventV1]) string {
	t.Helper()
	tx, err := w.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(t.Context())) }()
	for _, m := range all {
		require.NoError(t, p.Apply(t.Context(), tx, m))
	}
	var knows string
	require.NoError(t, tx.QueryRow(t.Context(), `select
  (select jsonb_pretty(jsonb_agg(to_jsonb(t))) from messaging.tasks t) ||
  (select jsonb_pretty(jsonb_agg(to_jsonb(h) order by event_id)) from messaging.task_history h)`).Scan(&knows))
	return knows
}

// permutations yields every order of n things.
func permutations(n int, yield func([]int)) {
	order := make([]int, 0, n)
	used := make([]bool, n)
	var extend func()
	extend = func() {
		if len(order) == n {
			yield(order)
			return
		}
		for i := range n {
			if !used[i] {
				used[i], order = true, append(order, i)
				extend()
				used[i], order = false, order[:len(order)-1]
			}
		}
	}
	extend()
}

// Every order of a history's events, in which each event comes again after every
// later one, gives the state of the events once and in order.
//
// A row of docs/DELIVERY.md.
func TestTheProjectionIsTheSameInWhateverOrderAndHoweverOftenEventsCome(t *testing.T) {
	t.Parallel()
	for name, history := range histories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &worker{pool: dvtest.Postgres(t)}
			p, err := task.NewProjection(w.pool, task.ProjectionConfig{})
			require.NoError(t, err)
			all := stored(t, history)
			want := projected(t, w, p, all...)
			require.Contains(t, want, fmt.Sprintf("%q: %q", "state", fold(t, history)))
			if name == "cancelled" {
				require.Contains(t, want, `"cancel_reason": "wrong rack"`, "the first request counts")
			}
			permutations(len(all), func(order []int) {
				var come []envelope.Received[task.EventV1]
				for i := range order {
					come = append(come, all[order[i]])
					for _, again := range order[:i] {
						come = append(come, all[again])
					}
				}
				require.Equal(t, want, projected(t, w, p, come...), "in the order %v", order)
			})
		})
	}
}

// fold is what the table of transitions says of a history.
func fold(t testing.TB, history []did) task.State {
	t.Helper()
	var state task.State
	for _, d := range history {
		next, err := state.Next(task.Verb(d.t.Subject().Verb()), the)
		require.NoError(t, err)
		state = next
	}
	return state
}

// A producer in another language may count wrongly. What ended stays ended, in
// whatever order its events come.
func TestAFinalStateOutweighsEveryVersion(t *testing.T) {
	t.Parallel()
	w := &worker{pool: dvtest.Postgres(t)}
	p, err := task.NewProjection(w.pool, task.ProjectionConfig{})
	require.NoError(t, err)
	all := stored(t, []did{v(task.Created, 1, 0), v(task.Succeeded, 2, 1), v(task.Progress, 9, 1), v(task.Progress, 9, 7)})
	want := projected(t, w, p, all...)
	require.Contains(t, want, `"state": "succeeded"`)
	permutations(len(all), func(order []int) {
		var come []envelope.Received[task.EventV1]
		for _, i := range order {
			come = append(come, all[i])
		}
		require.Equal(t, want, projected(t, w, p, come...), "in the order %v", order)
	})
}

func TestProjectedTasksCanBeListedShownAndForgotten(t *testing.T) {
	t.Parallel()
	w := &worker{pool: dvtest.Postgres(t)}
	p, err := task.NewProjection(w.pool, task.ProjectionConfig{})
	require.NoError(t, err)
	routes := map[string]envelope.Route{}
	for _, r := range p.Routes() {
		routes[r.Type] = r
	}
	require.Len(t, routes, 8)
	apply := func(m envelope.Received[task.EventV1]) error {
		return routes[m.Envelope.Type].Handle(t.Context(), m.Delivery)
	}
	for _, m := range stored(t, histories["as it should be"]) {
		require.NoError(t, apply(m))
	}
	got, err := task.Get(t.Context(), w.pool, "", the)
	require.NoError(t, err)
	begin := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	require.Equal(t, task.Task{
		ID: the, State: task.StateSucceeded, Version: 5, Kind: provision.Name(), Resource: "srv-1", Title: "Provision db1",
		Attempt: 1, Result: &envelope.Artifact{ObjectID: "image-1"}, CreatedBy: "user:kari", TenantID: "tenant-1", CorrelationID: "corr-1",
		CreatedAt: begin, StartedAt: begin.Add(2 * time.Second), FinishedAt: begin.Add(4 * time.Second), UpdatedAt: begin.Add(4 * time.Second),
	}, got)
	history, err := task.History(t.Context(), w.pool, "", the)
	require.NoError(t, err)
	require.Len(t, history, 4, "progress is not kept")
	require.Equal(t, task.VerbSucceeded, history[3].Verb)
	require.Equal(t, "image-1", history[3].Data.Result.ObjectID)

	for _, f := range []task.Filter{
		{}, {States: []task.State{task.StateFailed, task.StateSucceeded}}, {Kind: provision.Name()}, {Resource: "srv-1"},
		{CorrelationID: "corr-1"}, {TenantID: "tenant-1"}, {Since: begin, Limit: 1},
	} {
		found, err := task.List(t.Context(), w.pool, "", f)
		require.NoError(t, err)
		require.Equal(t, []task.Task{got}, found, "%+v", f)
	}
	for _, f := range []task.Filter{
		{States: []task.State{task.StateFailed}}, {Kind: "x"}, {Resource: "x"}, {CorrelationID: "x"}, {TenantID: "x"}, {Since: begin.Add(time.Hour)},
	} {
		found, err := task.List(t.Context(), w.pool, "", f)
		require.NoError(t, err)
		require.Empty(t, found, "%+v", f)
	}

	_, err = task.Forget(t.Context(), w.pool, "", time.Now().Add(-44*24*time.Hour), 0)
	require.ErrorContains(t, err, "45 days")
	n, err := task.Forget(t.Context(), w.pool, "", begin.Add(-time.Hour), 10)
	require.NoError(t, err)
	require.Zero(t, n, "nothing is that old")
	_, err = w.pool.Exec(t.Context(), `update messaging.tasks set updated_at = '2020-01-01'`)
	require.NoError(t, err)
	n, err = task.Forget(t.Context(), w.pool, "", time.Date(2020, 2, 1, 0, 0, 0, 0, time.UTC), 10)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = task.Get(t.Context(), w.pool, "", the)
	require.ErrorIs(t, err, task.ErrNotFound)
	history, err = task.History(t.Context(), w.pool, "", the)
	require.NoError(t, err)
	require.Empty(t, history)
}

// What a foreign producer sends must be projected or become a dead letter at once:
// nothing that it says may hold up the events of others.
func TestStrangeEventsHoldNothingUp(t *testing.T) {
	t.Parallel()
	w := &worker{pool: dvtest.Postgres(t)}
	p, err := task.NewProjection(w.pool, task.ProjectionConfig{})
	require.NoError(t, err)
	absurd := math.MaxInt
	strange := stored(t, []did{{task.Progress, task.EventV1{
		Version: math.MinInt64, Attempt: math.MaxInt, Percent: &absurd, Message: string(make([]byte, 0)),
		Error: &task.FailureV1{Text: "x"}, Cancel: &task.CancelV1{},
	}}, {task.Updated, task.EventV1{Version: math.MaxInt64, Title: "not ours"}}})
	projected(t, w, p, strange...)
	for _, r := range p.Routes() {
		if r.Type == task.Progress.Name() {
			m := strange[0]
			m.Envelope.Subject = "srv-1"
			require.True(t, envelope.IsPermanent(r.Handle(t.Context(), m.Delivery)), "no task has that id")
			m.Envelope.Data = []byte(`{"version":"one"}`)
			require.True(t, envelope.IsPermanent(r.Handle(t.Context(), m.Delivery)), "no data of an event")
		}
	}
	for _, err := range []error{
		func() error { _, err := task.Get(t.Context(), w.pool, "", "srv-1"); return err }(),
		func() error { _, err := task.History(t.Context(), w.pool, "", "srv-1"); return err }(),
	} {
		require.ErrorContains(t, err, "is no task id")
	}
	_, err = task.NewProjection(nil, task.ProjectionConfig{Schema: "A"})
	require.ErrorContains(t, err, "pool: is nil")
	require.ErrorContains(t, err, "ProjectionConfig.Schema")
}

// A service that starts before its migration is told what to do.
func TestMissingTablesAreNamed(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	_, err := task.List(t.Context(), pool, "", task.Filter{})
	require.ErrorIs(t, err, task.ErrNotMigrated)
	_, err = task.History(t.Context(), pool, "", the)
	require.ErrorIs(t, err, task.ErrNotMigrated)
	p, err := task.NewProjection(pool, task.ProjectionConfig{})
	require.NoError(t, err)
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return p.Apply(t.Context(), tx, stored(t, histories["cancelled"])[0])
	})
	require.ErrorIs(t, err, task.ErrNotMigrated)
}

// Who asks to cancel has a workflow of his own, and maybe another tenant: what he sends
// says nothing of the task but the request.
func TestARequestToCancelChangesNoFactOfTheTask(t *testing.T) {
	t.Parallel()
	w := &worker{pool: dvtest.Postgres(t)}
	p, err := task.NewProjection(w.pool, task.ProjectionConfig{})
	require.NoError(t, err)
	all := stored(t, []did{v(task.Created, 1, 0), {task.Updated, task.EventV1{
		Kind: "a", Resource: "a", Title: "a", Cancel: &task.CancelV1{By: "user:eve", Reason: "x"},
	}}})
	e := all[1].Envelope
	e.TenantID, e.CorrelationID, e.ProjectID, e.EnvironmentID, e.DatacenterID = "a", "a", "a", "a", "a"
	for _, come := range [][]envelope.Received[task.EventV1]{all, {all[1], all[0]}} {
		got := projected(t, w, p, come...)
		for _, want := range []string{
			`"tenant_id": "tenant-1"`, `"correlation_id": "corr-1"`, `"project_id": null`, `"environment_id": null`,
			`"datacenter_id": null`, `"kind": "` + provision.Name(), `"resource": "srv-1"`, `"title": null`, `"cancel_by": "user:eve"`,
		} {
			require.Contains(t, got, want)
		}
	}
}
