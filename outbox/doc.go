// Package outbox publishes what a transaction committed, and nothing else.
//
// A service stores its messages with Enqueue in the transaction that changes
// its state; a Relay in any replica of the service publishes them to
// JetStream. Both commit or neither does, so there is no state without its
// event and no event without its state (requirement O1).
//
// # Usage
//
//	out, err := outbox.New(set, outbox.Config{}) // set declares our streams
//
//	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
//		if _, err := tx.Exec(ctx, `update server set state = 'ready' where id = $1`, id); err != nil {
//			return err
//		}
//		return out.Enqueue(ctx, tx, maskinevents.ServerProvisioned.New(id, data))
//	})
//
//	relay, err := outbox.NewRelay(out, pool, conn.JetStream(), outbox.RelayConfig{})
//	err = relay.Run(ctx)
//
// # Guarantees
//
//   - A committed message is stored in its stream at least once; a rolled-back
//     one never is. A repeat carries the same Nats-Msg-Id: the stream drops it
//     inside its duplicate window, the inbox absorbs it after.
//   - Messages of one ordering key are stored in commit order, if the writers
//     of a key exclude each other before they enqueue. No retry reorders them:
//     of one key at most one message is unacknowledged.
//   - A full, missing or slow stream holds back its own messages only.
//   - An outage of the broker or the database becomes lag. No message has a
//     budget of attempts, and none is dropped.
//   - Messages that the broker acknowledged and lost (an unflushed tail, a
//     restored copy) are published again, before anything newer of their key.
//     Only a stream that was deleted and created anew waits for an operator
//     (RecreatedError, AcceptStream).
//   - What a stream holds already is not stored again, however long a crash or an
//     outage lasted: the relay reads what it holds behind the cursor.
//   - A database that came from another PostgreSQL cluster (a dump, an upgrade)
//     is published from where it was, without an operator.
//   - Memory is bounded by PageRows and PageBytes per stream, whatever the
//     backlog.
//
// # How new rows are found
//
// Sequence numbers are drawn before transactions commit, so "greater than the
// last" loses rows, and a fence at the oldest open transaction stalls behind
// any long one. The cursor of a stream is instead the snapshot (pg_snapshot)
// up to which everything was published: new is what that snapshot could not
// see. See docs/DESIGN.md and docs/decisions/0003.
//
// A relay with nothing to do sleeps, and says so in a sequence that Enqueue reads:
// a transaction notifies only then. Awake, it polls; a missed notification
// costs at most PollInterval.
//
// # Operators
//
// A message that no stream will ever take parks its ordering key: ListParked and
// ShowParked say what is held and why, ReleaseParked lets it go on, DiscardParked
// gives its head up. PlanRewind and RequestRewind have published again what
// consumers lost, AcceptStream lets the relay use a stream that was made anew.
// All of them work on the database, need to know who and why where they change
// something, keep a record of it, and leave the work to the relay that leads.
//
// # Concurrency
//
// An Outbox is safe for concurrent use. Several relays may run; a lease row
// with a term makes one of them lead, and fences the cursors against one that
// slept. The relay listens on one connection of its own; with Config.PollOnly it
// needs no session state and works through a transaction pooler.
//
// # Errors
//
// Enqueue validates before it touches the transaction. Relay.Run returns only
// what waiting cannot heal; Relay.Ready tells what it waits for, Relay.Alarm what
// else an operator should hear of. Of two operators who decide about the same
// thing one does, and the other is told who did: ParkedError, RewindPendingError,
// ErrNotParked, ErrHeadChanged.
package outbox
