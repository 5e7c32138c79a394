package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// Enqueuer stores messages in a transaction, all or none. *outbox.Outbox is one; its
// topology has to declare the stream of the task events (topology.TaskEvents) beside
// the command's.
type Enqueuer interface {
	// Enqueue stores the drafts in tx, from the origin in ctx.
	Enqueue(ctx context.Context, tx pgx.Tx, drafts ...envelope.Draft) error
}

// Start enqueues a command and opens its task in the same transaction and the same
// round trip: created and queued are published if and only if the command is
// (requirement K4). It returns the task's id, which is the command's.
//
// title says for people what the task is, such as "Provision db1"; it is cut to 512
// bytes and may be empty. The events belong where the command does: tenant, actor and
// correlation from ctx, project, environment and datacenter from the draft. The
// errors are those of Enqueue.
func Start(ctx context.Context, tx pgx.Tx, out Enqueuer, command envelope.Draft, title string) (id string, err error) {
	if out == nil {
		return "", errors.New("task: start: the outbox is nil; pass the service's *outbox.Outbox")
	}
	command, id = command.Identify()
	e := EventV1{Version: versionCreated, Kind: command.TypeName(), Resource: command.ResourceID(), Title: oneLine(title, maxMessage)}
	created := Created.New(id, e, command.Placement()...)
	e.Version, e.Title = versionQueued, ""
	queued := Queued.New(id, e, command.Placement()...)
	if err := out.Enqueue(ctx, tx, command, created, queued); err != nil {
		return "", fmt.Errorf("task: start a task with %.200s: %w", command.TypeName(), err)
	}
	return id, nil
}

// Cancel asks for the task to be cancelled: it publishes updated if tx commits, and
// the handler hears of it within about a second (see [Reporter.Cancels]). A request
// is not yet a cancellation: the task is cancelled when its handler has ended, or
// before it begins, and one that succeeds or fails first stays so. Of several
// requests the first counts. Nobody is told that there is no such task.
//
// Whether the actor may cancel that task is the caller's to decide, before: [Get] tells
// its tenant. The worker does not compare them.
//
// reason is required, for people, and cut to 512 bytes; who asks is the actor in ctx.
func Cancel(ctx context.Context, tx pgx.Tx, out Enqueuer, id, reason string) error {
	if out == nil {
		return errors.New("task: cancel: the outbox is nil; pass the service's *outbox.Outbox")
	}
	if _, err := parseID(id); err != nil {
		return fmt.Errorf("task: cancel: %w", err)
	}
	if reason == "" {
		return fmt.Errorf("task: cancel task %s: no reason is given; say why", id)
	}
	o, _ := envelope.OriginFrom(ctx) // without one Enqueue says so
	e := EventV1{Cancel: &CancelV1{By: o.Actor, Reason: oneLine(reason, maxMessage)}}
	if err := out.Enqueue(ctx, tx, Updated.New(id, e)); err != nil {
		return fmt.Errorf("task: cancel task %s: %w", id, err)
	}
	return nil
}
