package task_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
	"codeberg.org/dataverket/messaging/topology"
)

// The durables, constant.
var (
	provisions = topology.Consumer{
		Durable: "maskin__commands", Stream: commands, Filter: subject.CommandsOf(subject.Maskin),
		AckWait: 2 * time.Second, MaxAckPending: 4, Start: topology.StartFirst(),
	}
	cancels = topology.Consumer{
		Durable: "maskin__task_cancels", Stream: taskEvents, Filter: subject.Exactly(task.Updated.Subject()), Start: topology.StartFirst(),
	}
	projecting = topology.Consumer{
		Durable: "sentral__tasks", Stream: taskEvents, Filter: subject.TaskEvents(), MaxAckPending: 20, Start: topology.StartFirst(),
	}
)

// letters are the dead-letter streams of a service.
func letters(s subject.Service) []topology.Stream {
	return []topology.Stream{topology.DeadLetters(s, small), topology.DeadLetterOps(s, small)}
}

// platform is two services with a database each: sentral opens tasks and keeps their
// states, maskin works on them. Relays and consumers run until the test ends.
type platform struct {
	*worker
	server *dvtest.NATSServer
	js     jetstream.JetStream
	home   *pgxpool.Pool // sentral's database
	out    *outbox.Outbox
	queue  *dlq.Queue // maskin's dead letters
}

func setupPlatform(t *testing.T) *platform {
	t.Helper()
	p := &platform{worker: setup(t, 20*time.Millisecond), home: dvtest.Postgres(t), out: newOutbox(t, sentral), server: dvtest.Server(t)}
	p.js = p.server.Connect(t).JetStream()
	for _, set := range []topology.Set{
		{Service: subject.Maskin, Streams: append(letters(subject.Maskin), commands)},
		{Service: subject.Sentral, Streams: append(letters(subject.Sentral), taskEvents), Consumers: []topology.Consumer{projecting}},
		{Service: subject.Maskin, Streams: append(letters(subject.Maskin), commands, taskEvents), Consumers: []topology.Consumer{provisions, cancels}},
	} {
		require.NoError(t, topology.Ensure(t.Context(), p.js, set))
	}
	quiet := slog.New(slog.DiscardHandler)
	for pool, out := range map[*pgxpool.Pool]*outbox.Outbox{p.home: p.out, p.pool: newOutbox(t, maskin)} {
		relay, err := outbox.NewRelay(out, pool, p.js, outbox.RelayConfig{PollInterval: 20 * time.Millisecond, Logger: quiet})
		require.NoError(t, err)
		serve(t, relay.Run)
	}
	var err error
	p.queue, err = dlq.Open(t.Context(), p.js, subject.Maskin, dlq.Config{Logger: quiet})
	require.NoError(t, err)
	dead, err := dlq.Open(t.Context(), p.js, subject.Sentral, dlq.Config{Logger: quiet})
	require.NoError(t, err)
	projection, err := task.NewProjection(p.home, task.ProjectionConfig{})
	require.NoError(t, err)
	p.consume(t, dead, consumer.Config{Consumer: projecting}, projection.Routes()...)
	p.consume(t, p.queue, consumer.Config{Consumer: cancels}, p.reporter.Cancels())
	return p
}

// consume runs a consumer until the test ends.
func (p *platform) consume(t *testing.T, dead *dlq.Queue, cfg consumer.Config, routes ...envelope.Route) {
	t.Helper()
	cfg.Logger, cfg.RetryInitial, cfg.RetryMax = slog.New(slog.DiscardHandler), 5*time.Millisecond, 20*time.Millisecond
	c, err := consumer.New(p.js, dead, cfg, routes...)
	require.NoError(t, err)
	serve(t, c.Run)
}

// work runs maskin's handler.
func (p *platform) work(t *testing.T, attempts int, h handler) {
	t.Helper()
	p.consume(t, p.queue, consumer.Config{Consumer: provisions, Store: p.in, MaxAttempts: attempts}, p.route(h))
}

// serve runs a loop until the test ends, and waits for its end.
func serve(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(sync.OnceFunc(func() {
		stop()
		require.NoError(t, <-done)
	}))
}

// open opens a task for a command.
func (p *platform) open(t *testing.T) (id string) {
	t.Helper()
	require.NoError(t, pgx.BeginFunc(t.Context(), p.home, func(tx pgx.Tx) (err error) {
		id, err = task.Start(request(t), tx, p.out, provision.New("srv-1", provisionV1{Hostname: "db1"}), "Provision db1")
		return err
	}))
	return id
}

// await waits until the projection has a task in a state.
func (p *platform) await(t *testing.T, id string, is func(task.Task) bool) task.Task {
	t.Helper()
	var got task.Task
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		now, err := task.Get(t.Context(), p.home, "", id)
		require.NoError(c, err)
		require.True(c, is(now), "%+v", now)
		got = now
	}, soon, tick)
	return got
}

func in(s task.State) func(task.Task) bool { return func(t task.Task) bool { return t.State == s } }

// story is the verbs of a task in the projection's history, once all of them came.
func (p *platform) story(t *testing.T, id string, want ...task.Verb) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		history, err := task.History(t.Context(), p.home, "", id)
		require.NoError(c, err)
		var got []task.Verb
		for _, e := range history {
			got = append(got, e.Verb)
		}
		require.Equal(c, want, got)
	}, soon, tick)
}

// From the transaction of a request over both services' outboxes and the broker to the
// state that the task API shows: live progress, and success with its result.
func TestACommandIsFollowedFromItsRequestToItsResult(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t)
	id := p.open(t)
	p.await(t, id, in(task.StateQueued))
	p.work(t, 3, func(ctx context.Context, _ pgx.Tx, _ received) error {
		task.FromContext(ctx).Progress(30, "copying the image")
		// The user sees it while the handler runs.
		p.await(t, id, func(got task.Task) bool { return got.Message == "copying the image" })
		task.FromContext(ctx).SetResult(envelope.Artifact{ObjectID: "console-log"})
		return nil
	})
	got := p.await(t, id, in(task.StateSucceeded))
	require.Equal(t, "Provision db1", got.Title)
	require.Equal(t, "srv-1", got.Resource)
	require.Equal(t, provision.Name(), got.Kind)
	require.Equal(t, envelope.Actor("user:kari"), got.CreatedBy)
	require.Equal(t, 30, *got.Percent)
	require.Equal(t, "console-log", got.Result.ObjectID)
	require.False(t, got.CreatedAt.IsZero() || got.StartedAt.IsZero() || got.FinishedAt.IsZero())
	p.story(t, id, task.VerbCreated, task.VerbQueued, task.VerbStarted, task.VerbSucceeded)
	require.Equal(t, 1, p.effects(t))
}

// Requirement I4, with the real consumer: the command is tried as often as allowed and
// buried, the task fails with class, cause and letter, and the operator's replay after
// the fix ends it well.
//
// A row of docs/DELIVERY.md.
func TestADeadLetterFailsItsTaskAndTheReplaySucceeds(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t)
	id := p.open(t)
	fixed := make(chan struct{})
	p.work(t, 2, func(context.Context, pgx.Tx, received) error {
		select {
		case <-fixed:
			return nil
		default:
			return errBroken
		}
	})
	got := p.await(t, id, in(task.StateFailed))
	require.Equal(t, envelope.ClassExhausted, got.Error.Class)
	require.Equal(t, "rack is dark", got.Error.Text)
	require.Equal(t, 2, got.Attempt)
	failed, err := p.queue.Show(t.Context(), got.Error.LetterID)
	require.NoError(t, err, "the letter that the task names")
	require.Zero(t, p.effects(t))

	close(fixed)
	_, err = p.queue.Replay(t.Context(), failed.ID, dlq.Request{By: "operator:ola", Reason: "power is back, DV-412"})
	require.NoError(t, err)
	got = p.await(t, id, in(task.StateSucceeded))
	require.Nil(t, got.Error)
	p.story(t, id, task.VerbCreated, task.VerbQueued, task.VerbStarted, task.VerbQueued, task.VerbStarted, task.VerbQueued,
		task.VerbFailed, task.VerbStarted, task.VerbSucceeded)
	require.Equal(t, 1, p.effects(t))
}

// From the request in one service to the handler in another one's process.
func TestACancellationReachesTheHandlerOfAnotherService(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t)
	id := p.open(t)
	p.work(t, 3, func(ctx context.Context, _ pgx.Tx, _ received) error {
		require.NoError(t, pgx.BeginFunc(t.Context(), p.home, func(tx pgx.Tx) error {
			return task.Cancel(request(t), tx, p.out, id, "wrong rack")
		}))
		<-ctx.Done()
		return context.Cause(ctx)
	})
	p.await(t, id, in(task.StateCancelled))
	p.story(t, id, task.VerbCreated, task.VerbQueued, task.VerbStarted, task.VerbCancelled, task.VerbUpdated)
	got := p.await(t, id, func(got task.Task) bool { return got.Cancel != nil })
	require.Equal(t, &task.CancelV1{By: "user:kari", Reason: "wrong rack"}, got.Cancel)
	require.Zero(t, p.effects(t))
}

// An ordered consumer tries in place and parks: a command that asks to be tried later
// is queued meanwhile, and so is the one behind it, which nobody started.
func TestTheCommandsOfAnOrderedConsumerAreTasksInTheirOrder(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t)
	first, second := p.open(t), p.open(t)
	open := make(chan struct{})
	route := p.route(func(_ context.Context, _ pgx.Tx, m received) error {
		select {
		case <-open:
			return nil
		default:
			return envelope.RetryAfter(100*time.Millisecond, errBroken)
		}
	})
	p.consume(t, p.queue, consumer.Config{
		Consumer: provisions, Store: p.in, MaxAttempts: 1000, ParkAfter: time.Millisecond, Order: &consumer.Order{},
	}, route)
	p.await(t, first, func(got task.Task) bool { return got.State == task.StateQueued && got.Attempt > 1 })
	require.Empty(t, p.life(t, second))
	close(open)
	p.await(t, first, in(task.StateSucceeded))
	p.await(t, second, in(task.StateSucceeded))
	require.Equal(t, []string{"started 3", "succeeded 4"}, p.life(t, second))
	require.Equal(t, 2, p.effects(t))
}

// The sender was deployed before the worker: the command is a dead letter, and whoever
// waits for its task is told.
func TestACommandOfAVersionThatNobodyHandlesIsAFailedTask(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t)
	newer := envelope.MustCommand[provisionV1](envelope.CommandSpec{Service: subject.Maskin, Entity: "server", Action: "provision", Version: 2})
	var id string
	require.NoError(t, pgx.BeginFunc(t.Context(), p.home, func(tx pgx.Tx) (err error) {
		id, err = task.Start(request(t), tx, p.out, newer.New("srv-1", provisionV1{}), "")
		return err
	}))
	p.work(t, 3, succeed)
	got := p.await(t, id, in(task.StateFailed))
	require.Equal(t, envelope.ClassDecode, got.Error.Class)
	require.Contains(t, got.Error.Text, "no handler of this version")
	_, err := p.queue.Show(t.Context(), got.Error.LetterID)
	require.NoError(t, err)
}
