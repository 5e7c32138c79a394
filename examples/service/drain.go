package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/task"
)

// drainer handles the command to drain a node, which takes a while.
type drainer struct {
	out *outbox.Outbox
	// move lets a workload run elsewhere. It is an effect outside the transaction, so
	// it happens at least once: key is the same each time, for the other side to know
	// it by.
	move func(ctx context.Context, workload, key string) error
}

// routes binds the handler so that the command's task tells what becomes of it.
func (d drainer) routes(in *inbox.Inbox, reporter *task.Reporter) []envelope.Route {
	return []envelope.Route{task.On(reporter, inbox.On, in, plattformapi.Drain, d.drain)}
}

// drain moves what runs on a node. Its ctx ends when somebody cancels the task, and
// with it the transaction: the node is then as it was, and what was moved outside is
// moved again by the next drain, under another message and so another key.
func (d drainer) drain(ctx context.Context, tx pgx.Tx, m envelope.Received[plattformapi.DrainV1]) error {
	id := m.Envelope.Subject
	state, err := lockNode(ctx, tx, id)
	switch {
	case errors.Is(err, errNoNode):
		return envelope.Permanent(task.Coded("no_such_node", fmt.Errorf("drain node %s: %w", id, err)))
	case err != nil:
		return err
	case state == "drained":
		return nil // it already is what was asked for
	}
	workloads, err := workloadsOn(ctx, tx, id)
	if err != nil {
		return err
	}
	for i, workload := range workloads {
		task.FromContext(ctx).Progress(100*i/len(workloads), "moving "+workload)
		if err := d.move(ctx, workload, m.IdempotencyKey("plattform.move."+workload)); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, `update workload set node = null where node = $1`, id); err != nil {
		return err
	}
	if err := setState(ctx, tx, id, "drained"); err != nil {
		return err
	}
	return d.out.Enqueue(ctx, tx, plattformapi.NodeDrained.New(id, plattformapi.NodeDrainedV1{Moved: len(workloads)}))
}

// moveSlowly stands where a service would call what runs the workloads.
func moveSlowly(ctx context.Context, _, _ string) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(200 * time.Millisecond):
		return nil
	}
}
