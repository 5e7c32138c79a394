package task_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/task"
)

// The environment of a worker process: where it stops, and its servers.
const (
	workerEnv   = "TASK_TEST_WORKER"
	natsEnv     = "TASK_TEST_NATS"
	postgresEnv = "TASK_TEST_POSTGRES"
)

// Where a worker process stops, for ever.
const (
	inHandler = "in the handler"
	atMark    = "between the event of the failure and the inbox's mark"
	stopped   = "stopped"
)

// workingChild consumes commands, says when it has come to where it stops, and waits
// to be killed.
func workingChild() error {
	ctx := context.Background()
	nc, err := nats.Connect(os.Getenv(natsEnv))
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, os.Getenv(postgresEnv))
	if err != nil {
		return err
	}
	route, in, err := childRoute(pool, os.Getenv(workerEnv))
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	queue, err := dlq.Open(ctx, js, subject.Maskin, dlq.Config{Logger: quiet})
	if err != nil {
		return err
	}
	c, err := consumer.New(js, queue, consumer.Config{Consumer: provisions, Store: in, Logger: quiet}, route)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// childRoute stops where it is told.
func childRoute(pool *pgxpool.Pool, where string) (envelope.Route, *inbox.Inbox, error) {
	in, err := inbox.New(pool, "maskin__commands", inbox.Config{})
	if err != nil {
		return envelope.Route{}, nil, err
	}
	out, err := outbox.New(maskin, outbox.Config{})
	if err != nil {
		return envelope.Route{}, nil, err
	}
	r, err := task.NewReporter(pool, out, task.ReporterConfig{Interval: tick})
	if err != nil {
		return envelope.Route{}, nil, err
	}
	hang := func() {
		fmt.Println(stopped)
		select {}
	}
	route := task.On(r, inbox.On, in, provision, func(ctx context.Context, tx pgx.Tx, m received) error {
		if _, err := tx.Exec(ctx, `insert into server values ($1)`, m.Envelope.Subject); err != nil {
			return err
		}
		if where == inHandler {
			hang()
		}
		return envelope.Permanent(errBroken)
	})
	route.MarkDead = func(context.Context, *envelope.Delivery, string) error {
		hang()
		return nil
	}
	return route, in, nil
}

// killedAt runs a worker process until it stops there and the task is in a state, and
// kills it.
func (p *platform) killedAt(t *testing.T, where, id string, state task.State) {
	t.Helper()
	c := p.pool.Config().ConnConfig
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), workerEnv+"="+where, natsEnv+"="+p.server.URL(),
		postgresEnv+"="+fmt.Sprintf("host=%s port=%d dbname=%s user=%s password=%s", c.Host, c.Port, c.Database, c.User, quoted(c.Password)))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	line := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		lines.Scan()
		line <- lines.Text()
	}()
	select {
	case got := <-line:
		require.Equal(t, stopped, got)
	case <-time.After(soon):
		t.Error("the worker does not get there")
	}
	p.await(t, id, in(state))
}

// quoted is a value of a connection string.
func quoted(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

// The process dies under its handler: one start for each attempt, and one end.
//
// A row of docs/DELIVERY.md.
func TestATaskWhoseWorkerIsKilledIsStartedAgainAndEndsOnce(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t)
	id := p.open(t)
	p.killedAt(t, inHandler, id, task.StateStarted)
	p.work(t, 3, succeed)
	p.await(t, id, in(task.StateSucceeded))
	all := events(t, p.pool, id)
	require.Equal(t, []string{"started 3", "started 4", "succeeded 5"}, life(all))
	require.Equal(t, []int{1, 2, 2}, []int{all[0].Attempt, all[1].Attempt, all[2].Attempt})
	require.Equal(t, 1, p.effects(t))
}

// The process dies when the letter is stored and the failure told, before the inbox
// knows that the command is dead: it is tried once more, fails again, and has one
// letter.
//
// A row of docs/DELIVERY.md.
func TestATaskStaysFailedWhoseWorkerIsKilledBeforeTheMark(t *testing.T) {
	t.Parallel()
	p := setupPlatform(t)
	id := p.open(t)
	p.killedAt(t, atMark, id, task.StateFailed)
	p.work(t, 3, func(context.Context, pgx.Tx, received) error { return envelope.Permanent(errBroken) })
	require.Eventually(t, func() bool { // the inbox's mark
		var dead int
		err := p.pool.QueryRow(t.Context(), `select count(*) from messaging.inbox_messages where letter_id is not null`).Scan(&dead)
		return err == nil && dead == 1
	}, soon, tick)
	require.Equal(t, []string{"started 3", "failed 4"}, p.life(t, id))
	got := p.await(t, id, in(task.StateFailed))
	letters := 0
	for l, err := range p.queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		require.Equal(t, got.Error.LetterID, l.ID)
		letters++
	}
	require.Equal(t, 1, letters)
}
