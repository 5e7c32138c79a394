// Package inbox applies the effect of a message once, however often the message
// is delivered.
//
// # Usage
//
// Bind a handler to a message type and pass the route to consumer.New:
//
//	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
//
//	route := inbox.On(in, maskinevents.ServerProvisioned,
//		func(ctx context.Context, tx pgx.Tx, m envelope.Received[maskinevents.ServerProvisionedV1]) error {
//			_, err := tx.Exec(ctx, `insert into node (server_id, host) values ($1, $2)`, m.Data.ServerID, m.Data.Hostname)
//			return err
//		})
//
// A handler whose work is a statement or two is faster with [OnBatch]: the messages
// that the consumer holds at the same time share a transaction, and one that fails
// is tried alone.
//
// A handler that must not apply what is older than what it has asks [Inbox.Newer],
// or [Inbox.NewerAll] for a batch.
//
// What does not come over NATS, such as an HTTP request with an idempotency key,
// uses [Inbox.Once], with [MessageFor] where the key is no UUID.
//
// # How it works
//
// One transaction holds a row that names the message, and the effect:
//
//	begin
//	insert the row (consumer, source, message id)   already there: roll back, done
//	handler(ctx, tx)                                error: roll back
//	commit
//
// The row comes first, so that a second copy of the message waits for the first:
// if that commits, the second is a duplicate; if it rolls back, the second takes
// over. Any outcome but commit leaves no row.
//
// # Guarantees
//
//   - Everything done in tx, outbox.Enqueue included, is committed exactly once
//     per (consumer, source, message id), whatever is redelivered, republished
//     or replayed, within the horizon (requirements I2, I8).
//   - The commit is durable even where the role's synchronous_commit is off: a
//     message must not be acknowledged for an effect that a crash takes back.
//   - A message that became a dead letter has no effect any more, except through
//     the replay that names the letter, and through that once.
//   - Versions that [Inbox.Newer] lets pass grow for each key, in whatever order
//     messages come, and how many handlers there are (requirement I7).
//   - Exactly-once ends with the transaction. What a handler does outside of it
//     happens at least once, also if the transaction is rolled back: give such a
//     request envelope.Delivery.IdempotencyKey, and let the other side recognise
//     repeats (requirement I10).
//
// The consumer's name is part of the key, so two handlers of one message in one
// database both run. Two durables that bring the same messages, such as a local
// one and that of another site's copy, share one Inbox name and the effect.
//
// # Retention
//
// A service runs one [Janitor] beside its consumers, in every replica:
//
//	janitor, err := inbox.NewJanitor(pool, events.MaxAge, inbox.JanitorConfig{})
//	g.Go(func() error { return janitor.Run(ctx) })
//
// It forgets messages that were handled longer ago than the horizon, 45 days by
// default. One that is shorter than the age of the streams, plus how long relays
// publish again, plus a day, is refused: a repeat could find its first handling
// forgotten. What came into being long ago and was handled today is remembered
// from today on.
//
//	id made           0        6 d            21 d           66 d         99 d
//	its partition     ├─filling─┤──late ones───┤──remembered──┤──empty──────┤ again
//
// Message ids of version 7 begin with their time; those of about six days share a
// partition, which is truncated in milliseconds however full it is. Handlers do not
// wait for that: they lock the partition of their message alone. One that handles a
// message of two months ago at that moment may wait for 20 ms. Ids of other versions
// share a partition that is cleaned in batches, so prefer version 7 where there are
// many. No partition is made or dropped while a service runs. What is known of
// attempts at messages that were never done goes after the horizon too.
//
// # Concurrency
//
// An Inbox holds no state but its pool and is safe for concurrent use. Each call
// takes one connection for the time of the handler, so the pool needs at least as
// many as the consumer has workers; one that is short of them only waits, within
// ctx.
//
// # Errors
//
// [NewJanitor] refuses a horizon with a [*HorizonError] that says the number.
//
// A handler's error is returned as it is, so that envelope.Permanent and
// envelope.RetryAfter keep their meaning; envelope.ErrAlreadyProcessed says that
// the effect was there; [ErrDeadUnderOtherLetter] that a replay named the wrong
// letter of a message that has two. A commit whose outcome is unknown is a plain error: the
// message is delivered again, and the row decides. Missing tables are a
// [*MigrationError].
package inbox
