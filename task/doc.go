// Package task shows the life of long-running commands to whoever waits for them, and
// lets them be cancelled.
//
// A task is the life of one command and has the command's id. Events on
// dv.task.evt.<verb> tell it; a projection keeps the newest state of each in
// PostgreSQL.
//
// # Usage
//
// Whoever asks opens the task in the transaction that enqueues the command:
//
//	id, err := task.Start(ctx, tx, out, maskincommands.Provision.New(serverID, data), "Provision db1")
//
// Whoever works says so where the handler is bound: inbox.On becomes an argument of
// task.On, and the handler stays as it is.
//
//	reporter, err := task.NewReporter(pool, out, task.ReporterConfig{})
//
//	route := task.On(reporter, inbox.On, in, maskincommands.Provision,
//		func(ctx context.Context, tx pgx.Tx, m envelope.Received[maskincommands.ProvisionV1]) error {
//			task.FromContext(ctx).Progress(40, "copying the image")
//			...
//		})
//
// Whoever owns the task API projects the events and reads the table:
//
//	projection, err := task.NewProjection(pool, task.ProjectionConfig{})
//	tasks, err := consumer.New(js, dead, consumer.Config{Consumer: durable}, projection.Routes()...)
//	t, err := task.Get(ctx, pool, "", id)
//
// Somebody changes his mind; the worker hears of it by a durable of its own on the task
// events, filtered to subject.Exactly(task.Updated.Subject()):
//
//	err = task.Cancel(ctx, tx, out, id, "wrong rack")
//	requests, err := consumer.New(js, dead, consumer.Config{Consumer: durable}, reporter.Cancels())
//
// All of them declare the stream of the task events in their topology
// (topology.TaskEvents), which the service that it names owns.
//
// # Life of a task
//
//	created ─▶ queued ─▶ started ⟲ progress ─▶ succeeded
//	              ▲         │ ├───────────────▶ cancelled
//	              └─────────┘ └─▶ failed ─▶ started (a replay)
//
// Started again is the next attempt of a command whose process died; queued again one
// that failed and will be tried again. A failed task moves on when an operator replays
// the dead letter that it names. Succeeded and cancelled are final. What cannot follow
// is a [*TransitionError].
//
// # Guarantees
//
//   - Created and queued are published if and only if the command is (requirement K4).
//   - Succeeded is published if and only if the handler's effect is there: it is in
//     the handler's transaction, through the outbox.
//   - A command that becomes a dead letter moves its task to failed, with class, cause
//     and letter (requirement I4), whatever crashes: the event is committed before the
//     inbox knows that the command is dead, and repeated until it is.
//   - One started for each attempt, and one end for each that its process survives. A
//     repeat that the inbox holds back is no attempt. Progress of an attempt that
//     another has overtaken, and what comes behind the end, is not published. A copy
//     that runs beside the command's dead letter tells of nothing but success and
//     cancellation.
//   - Progress is published while the handler's transaction is open, the first at once
//     and then the newest once a second; the last is part of the event that ends the
//     attempt.
//   - The projection is the same in whatever order and however often events come
//     (requirement K1).
//   - What was said to be cancelled has no effect in the handler's transaction.
//
// Not guaranteed: that the start of an attempt is published whose process dies, or that
// a shutdown interrupts, before a moment has passed; that a request to cancel
// wins, since the handler may be done first; that the stream holds the events of
// one task in the order of their versions, since two services publish them; and anything
// about a command whose envelope cannot be read, whose type has no handler in any
// version, or that becomes a dead letter of class security: what it is about is not
// known, and its task stays queued beside the letter.
//
// # Versions
//
// Each event has the task's version, and says all that is known once it has happened, so
// that the highest version is the state. Created is 1 and queued 2. From there on the
// service that handles the command counts, in one row for each task, whose lock also
// puts the events into the order of its outbox. See docs/WIRE.md for other languages.
//
// # Concurrency
//
// [Reporter] and [Projection] are safe for concurrent use. A goroutine looks after each
// command while its handler runs, and ends with it. It takes a connection of the pool
// beside the handler's for a moment, which the handler does not wait for: so no pool is
// too small, but one without a free connection shows the start and the progress late.
//
// # Errors
//
// [*TransitionError] and [*CancelError] for errors.AsType; [ErrCancelRequested],
// [ErrNotFound] and [ErrNotMigrated] for errors.Is.
//
// # Retention
//
// [Forget] deletes what ended longer ago than any dead letter is replayed. Call it now
// and then; the tables grow until then.
//
// # Security
//
// The text of a handler's error is published with its task, and titles and messages are
// for whoever may see it. They must not tell what only operators may know. Whoever may
// publish task events can say anything about any task: grant it to the services that
// work on tasks.
package task
