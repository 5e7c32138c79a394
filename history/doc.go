// Package history reads what streams still hold (requirement I9), and hands it to
// a durable once more when an operator says so (requirement M5).
//
// # Usage
//
// What happened to one server, read once from front to back:
//
//	for m, err := range history.ReadAs(ctx, js, maskinevents.ServerProvisioned, history.Query{
//		Resource: "server-1", Since: time.Now().Add(-24 * time.Hour),
//	}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(m.Envelope.Time, m.Data.Hostname)
//	}
//
// Read does the same for any messages of a subject or a pattern, without their
// type.
//
// A durable whose handler was repaired, or whose database was restored from a
// backup, gets its messages again from a time or a sequence:
//
//	reset, err := history.ResetDurable(ctx, js, history.Durable{Stream: "DV_MASKIN_EVT", Name: "plattform__from_maskin"},
//		history.ResetRequest{Since: lastBackup, By: "operator:ola", Reason: "restored, DV-412", DryRun: true})
//
// # Guarantees
//
//   - A read is bounded: by Query.Max, Query.MaxRead and Query.Timeout, and by what
//     was stored when it began. Where a bound ends it before the end, the last error
//     is a [*LimitError] that says where to go on: nothing is left out silently.
//   - A read acknowledges nothing, and moves no durable. Its consumer is deleted
//     when the loop ends, whichever way, also by the end of ctx; if the process
//     dies, the server deletes it after a minute of silence.
//   - Messages come in the order of the stream, each once. A message that does not
//     decode, or contradicts its headers or its subject, is an error in its place
//     ([*MessageError]), and the loop goes on behind it if the caller does. One that
//     does not decode is passed over where only those of a resource, workflow or
//     tenant are meant.
//   - A reset never makes a durable leave out what it has not handled. It is refused
//     where it would.
//   - Nothing is ever reset by itself.
//
// Not guaranteed: that a stream still holds what is asked for. Events are kept for
// 7 days and commands for 14, unless declared otherwise.
//
// # What a reset repeats
//
// Everything from the first message on is delivered again, to the service that has
// the durable and to nobody else, at the pace of its consumer. An inbox leaves out
// what it has handled; a handler without one does everything again. What an inbox
// has forgotten is done again too: a reset that reaches further back than
// ResetRequest.Horizon is refused with a [*HorizonError] unless BeyondHorizon says
// that somebody has thought about it. Messages that became dead letters are left
// out by the inbox as well: they are replayed from there.
//
// # Concurrency
//
// All functions are safe for concurrent use. They start no goroutine that outlives
// a call. Reading may go on beside any consumer; a durable may be reset while its
// consumer runs.
//
// # Errors
//
// [ErrNoStream], [ErrNoDurable] and [ErrNothing] are for errors.Is; [*LimitError],
// [*MessageError], [*HorizonError], [*StartError], [*SkipError] and [*FieldError]
// for errors.AsType.
//
// # Rights
//
// A reader publishes $JS.API.STREAM.INFO.<stream>,
// $JS.API.CONSUMER.{CREATE,INFO,DELETE}.<stream>.> and
// $JS.API.CONSUMER.MSG.NEXT.<stream>.>. Whoever resets also publishes
// $JS.API.CONSUMER.RESET.<stream>.<durable>.
//
// # Security
//
// Messages hold what the platform's users wrote, of all tenants. Whoever may read a
// stream may read all of it: ask who is looking first.
package history
