package task_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/task"
)

// The handler of a request opens the task, and answers with its id.
func ExampleStart() {
	accept := func(ctx context.Context, pool *pgxpool.Pool, out *outbox.Outbox, serverID string) (id string, err error) {
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `update server set state = 'wanted' where id = $1`, serverID); err != nil {
				return err
			}
			id, err = task.Start(ctx, tx, out, provision.New(serverID, provisionV1{Hostname: "db1"}), "Provision db1")
			return err
		})
		return id, err
	}
	_ = accept
}

// A handler that reports is bound with task.On instead of inbox.On.
func ExampleOn() {
	serve := func(ctx context.Context, pool *pgxpool.Pool, out *outbox.Outbox, js jetstream.JetStream, dead *dlq.Queue, in *inbox.Inbox) error {
		reporter, err := task.NewReporter(pool, out, task.ReporterConfig{})
		if err != nil {
			return err
		}
		commands, err := consumer.New(js, dead, consumer.Config{Consumer: provisions, Store: in},
			task.On(reporter, inbox.On, in, provision, func(ctx context.Context, tx pgx.Tx, m envelope.Received[provisionV1]) error {
				task.FromContext(ctx).Progress(10, "choosing a rack")
				_, err := tx.Exec(ctx, `insert into server (id, hostname) values ($1, $2)`, m.Envelope.Subject, m.Data.Hostname)
				return err
			}))
		if err != nil {
			return err
		}
		return commands.Run(ctx)
	}
	_ = serve
}

// Work outside of the transaction watches ctx, which also ends when somebody cancels
// the task.
func ExampleErrCancelRequested() {
	handle := func(ctx context.Context, _ pgx.Tx, m envelope.Received[provisionV1]) error {
		<-ctx.Done() // copying takes an hour
		if errors.Is(context.Cause(ctx), task.ErrCancelRequested) {
			fmt.Println("removing what was copied for", m.Data.Hostname)
		}
		return context.Cause(ctx)
	}
	_ = handle
}

// The service that owns the task API: the states of all tasks.
func ExampleNewProjection() {
	serve := func(ctx context.Context, pool *pgxpool.Pool, js jetstream.JetStream, dead *dlq.Queue) error {
		projection, err := task.NewProjection(pool, task.ProjectionConfig{})
		if err != nil {
			return err
		}
		tasks, err := consumer.New(js, dead, consumer.Config{Consumer: projecting}, projection.Routes()...)
		if err != nil {
			return err
		}
		return tasks.Run(ctx)
	}
	_ = serve
}

func ExampleState_Next() {
	state, err := task.StateFailed.Next(task.VerbStarted, "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01")
	fmt.Println(state, err)
	_, err = task.StateSucceeded.Next(task.VerbProgress, "0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01")
	fmt.Println(err)
	// Output:
	// started <nil>
	// task: task 0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b01 is succeeded: progress cannot follow
}
