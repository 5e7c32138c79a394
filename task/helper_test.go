package task_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// soon bounds what takes milliseconds.
	soon = time.Minute
	tick = 5 * time.Millisecond
)

type provisionV1 struct {
	Hostname string `json:"hostname"`
}

type received = envelope.Received[provisionV1]

// provision is what sentral asks of maskin.
var provision = envelope.MustCommand[provisionV1](envelope.CommandSpec{
	Service: subject.Maskin, Entity: "server", Action: "provision", Version: 1,
})

// The streams, constant.
var (
	small      = topology.Limits{MaxBytes: 16 << 20}
	commands   = topology.Commands(subject.Maskin, small)
	taskEvents = topology.TaskEvents(subject.Sentral, small)
	sentral    = topology.Set{Service: subject.Sentral, Streams: []topology.Stream{commands, taskEvents}}
	maskin     = topology.Set{Service: subject.Maskin, Streams: []topology.Stream{commands, taskEvents}}
)

// The test binary is also the process that is killed under its handler.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		fmt.Fprintln(os.Stderr, workingChild())
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, natsserver.StillWaiting(
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))...)
}

func newOutbox(t testing.TB, set topology.Set) *outbox.Outbox {
	t.Helper()
	out, err := outbox.New(set, outbox.Config{})
	require.NoError(t, err)
	return out
}

// request is the context of a request at the edge.
func request(t testing.TB) context.Context {
	return envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "tenant-1"))
}

// worker is maskin: its database, and the parts that report.
type worker struct {
	pool     *pgxpool.Pool
	in       *inbox.Inbox
	reporter *task.Reporter
}

// setup makes a worker whose reporter looks around once an interval.
func setup(t testing.TB, interval time.Duration) *worker {
	t.Helper()
	w := &worker{pool: dvtest.Postgres(t)}
	_, err := w.pool.Exec(t.Context(), `create table server (id text not null)`)
	require.NoError(t, err)
	w.in, err = inbox.New(w.pool, "maskin__commands", inbox.Config{})
	require.NoError(t, err)
	w.reporter, err = task.NewReporter(w.pool, newOutbox(t, maskin), task.ReporterConfig{
		Interval: interval, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return w
}

// never is longer than a test.
const never = time.Minute

// handler is what a service writes.
type handler = func(context.Context, pgx.Tx, received) error

// route binds h, which is called after its effect is in the transaction.
func (w *worker) route(h handler) envelope.Route {
	return task.On(w.reporter, inbox.On, w.in, provision, func(ctx context.Context, tx pgx.Tx, m received) error {
		if _, err := tx.Exec(ctx, `insert into server values ($1)`, m.Envelope.Subject); err != nil {
			return err
		}
		return h(ctx, tx, m)
	})
}

func succeed(context.Context, pgx.Tx, received) error { return nil }

var errBroken = errors.New("rack is dark")

// command is a message as sentral sends it.
func command(t testing.TB) envelope.Message {
	t.Helper()
	m, err := envelope.New(request(t), subject.Sentral, provision.New("srv-1", provisionV1{Hostname: "db1"}, envelope.Project("p-1")))
	require.NoError(t, err)
	return m
}

// deliver hands a message to a route as a consumer does.
func deliver(t testing.TB, route envelope.Route, m envelope.Message) error {
	t.Helper()
	d := delivery(m)
	return route.Handle(d.Context(t.Context()), d)
}

func delivery(m envelope.Message) *envelope.Delivery {
	return &envelope.Delivery{Envelope: m.Envelope, Subject: m.Subject, Header: m.Header(), Stream: commands.Name, Sequence: 1, Durable: "maskin__commands", Attempt: 1}
}

// letter is the id of the tests' dead letter.
const letter = "l0123456789abcdef0123456789abcdef01234567"

// replay is delivery of a dead letter that an operator replays.
func replay(t testing.TB, route envelope.Route, m envelope.Message) error {
	t.Helper()
	d := delivery(m)
	d.LetterID = letter
	return route.Handle(d.Context(t.Context()), d)
}

// bury does what a consumer does with a letter that was stored.
func bury(t testing.TB, route envelope.Route, m envelope.Message, class envelope.Class, err error) {
	t.Helper()
	require.NoError(t, route.OnDead(t.Context(), delivery(m), &envelope.Failure{Class: class, Err: err}, letter))
}

// told is one task event in an outbox.
type told struct {
	verb string
	env  *envelope.Envelope
	task.EventV1
}

// events are the task events in the outbox of a database, in the order in which they
// are published.
func events(t testing.TB, pool *pgxpool.Pool, id string) []told {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select envelope from messaging.outbox_events where stream = $1 and ordering_key = $2 order by seq`, taskEvents.Name, id)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	require.NoError(t, err)
	var list []told
	for _, data := range all {
		env, err := envelope.Decode(data)
		require.NoError(t, err)
		list = append(list, toldBy(t, env))
	}
	return list
}

// toldBy reads a task event of whatever verb.
func toldBy(t testing.TB, env *envelope.Envelope) told {
	t.Helper()
	for _, typ := range []envelope.Type[task.EventV1]{
		task.Created, task.Queued, task.Started, task.Progress, task.Succeeded, task.Failed, task.Cancelled, task.Updated,
	} {
		if typ.Name() == env.Type {
			e, err := typ.Decode(env)
			require.NoError(t, err)
			return told{typ.Subject().Verb(), env, e}
		}
	}
	t.Fatalf("%s is no task event", env.Type)
	return told{}
}

// life is the verbs and versions of some events: "started 3".
func life(all []told) []string {
	var list []string
	for _, e := range all {
		list = append(list, fmt.Sprintf("%s %d", e.verb, e.Version))
	}
	return list
}

func (w *worker) life(t testing.TB, id string) []string { return life(events(t, w.pool, id)) }

// started waits, in a handler, until its start was told.
func (w *worker) started(t testing.TB, m received) {
	t.Helper()
	require.Eventually(t, func() bool {
		all := events(t, w.pool, m.Envelope.ID)
		return len(all) > 0 && all[len(all)-1].verb == "started"
	}, soon, tick)
}

// effects counts what handlers did.
func (w *worker) effects(t testing.TB) (n int) {
	t.Helper()
	require.NoError(t, w.pool.QueryRow(t.Context(), `select count(*) from server`).Scan(&n))
	return n
}
