// Package consumer reads one durable of a JetStream stream and hands its
// messages to typed handlers: bounded, retried with backoff, and never lost
// without a dead letter.
//
// # Usage
//
// Declare the durable, create it with topology.Ensure, and run:
//
//	dead, err := dlq.Open(ctx, js, subject.Plattform, dlq.Config{})
//	in, err := inbox.New(pool, declared.Durable, inbox.Config{})
//	servers, err := consumer.New(js, dead, consumer.Config{Consumer: declared, Store: in},
//		consumer.On(maskinevents.ServerProvisioned, onProvisioned), // no database
//		inbox.On(in, maskinevents.ServerRemoved, onRemoved),        // effect applied once
//	)
//	err = servers.Run(ctx)
//
// Without Config.Store nothing of a message outlives the process but the inbox's
// rows: no count of handler starts, no crash found out, no long delays.
//
// A handler is func(context.Context, envelope.Received[T]) error. Its ctx
// carries the origin of the message, so that what it sends is correlated without
// a parameter, ends after Config.HandlerTimeout, and is cancelled late in a
// shutdown. Its error is the verdict:
//
//	nil, envelope.ErrAlreadyProcessed   done: acknowledged
//	any error, a panic                  again after a growing, jittered delay
//	*envelope.RetryAfterError           again after that delay: at most 10 min,
//	                                    with a Store 7 days
//	envelope.Permanent(err)             a dead letter now, class poison
//	any error at the last attempt       a dead letter, class exhausted
//	any error after a shutdown's cancel given back at once, no verdict
//
// An audit or a bridge takes every type that has no handler of its own with [OnAny],
// or inbox.OnAny.
//
// What cannot be decoded or has no handler is a dead letter of class decode,
// and a message whose headers or subject contradict its envelope one of class
// security; no handler sees either.
//
// # Life of a message
//
//	           ┌───────────────── delay, or at once ────────────────┐
//	           ▼                                                    │
//	fetched ─▶ decoded ─▶ handler ─▶ nil ───────────▶ ack           │
//	               │         ├─▶ error, attempts left ─▶ nak ───────┤
//	               │         ├─▶ the same, long delay ─▶ parked, ack┤
//	               │         ├─▶ interrupted by shutdown ─▶ nak ────┘
//	               ▼         ▼
//	            letter stored ─▶ marked dead ─▶ term
//
// # Guarantees
//
//   - A message is acknowledged only after its handler succeeded, and
//     terminated only after its dead letter was acknowledged (requirement I3).
//     A crash at any point repeats it. With inbox.On the effect is applied once
//     all the same; with [On] the handler must bear repeats.
//   - While dead letters are refused, nothing is dropped: the message stays in
//     progress, nothing new but replays is fetched, and Ready says why.
//   - At most Config.Concurrency handlers run. Messages are requested only for
//     free workers (with an Order for free places, see there), so none waits in a buffer while its AckWait runs down, and
//     the server is told every third of AckWait that a handler still works. One
//     handler slower than AckWait is one handler.
//   - Replicas share a durable; each message goes to one of them (requirement
//     I6). A shutdown finishes what it can and gives the rest back, without a
//     verdict on it.
//   - Run never creates a durable (requirement T9). One that is deleted under it
//     makes it not ready; once it is there again Run goes on.
//   - Nothing is asked of the server faster than backoff allows while a durable
//     is missing or has no leader, and nothing at all while disconnected.
//
// # Order
//
// Without Config.Order messages are handled in parallel and a retry lets others
// pass. With it the messages of a key, by default the envelope's subject, are
// handled one at a time and in the order of the stream, and keys concurrently:
//
//   - A message that fails is tried again in its place. It holds those of its key
//     and no other. When it becomes a dead letter its key goes on, or with
//     Order.HoldKey waits until an operator replays the letter, which goes before
//     all that wait, or closes it. What waits for an operator, or behind a message
//     that is parked, is parked too, in its order.
//   - Exactly one instance of a durable is active, by a lease in the database of
//     Config.Store. The others stand by, ready; Stats.Active tells which is which.
//     A stop hands over at once, a death after Order.LeaseTTL.
//   - The active instance has the durable reset to its ack floor when it takes
//     over, and proves by the server's numbering of deliveries that it gets all of
//     them. One that is missing went elsewhere: then the durable is reset again
//     before anything behind it is handled. What was settled above the floor comes
//     again, and the inbox absorbs it. It needs a server of 2.14 or newer and the
//     right to publish to $JS.API.CONSUMER.RESET.<stream>.<durable>.
//   - An instance that hangs and wakes after it was overtaken has no effect out of
//     order: the inbox's transaction looks at the lease's term. That holds for
//     effects in the transaction of inbox.On and for no other. The sessions of its
//     open transactions are ended at the take-over.
//
// The limits: Messages that wait are held in memory and take one of the durable's
// MaxAckPending places each, unless the head of their key is parked (see Long
// delays); one hot key whose head fails can take them all, and then nothing is
// fetched until it is done. Nor is it when Order.MaxAhead messages
// came since the oldest that is not done. A dead letter without HoldKey, and its
// replay, leave the order; so does a message that the producer published out of
// order. A database that loses commits in a failover may give a term twice. The
// pool of the inbox needs two connections more than Concurrency: a
// renewal that waits for one costs the lease.
//
// MaxAckPending 1 without an Order delivers strictly one message at a time, and a
// failing one before its followers, for as long as one instance runs uninterrupted
// (requirement I7).
//
// # Shards
//
// Where one active instance is not enough, declare a durable for each of n shards,
// all with the same stream and filter, and run for each a consumer with Order.Shard
// and Order.Shards and the same inbox. Each reads everything and handles its keys.
// To change n, or to begin with shards:
//
//  1. Replay or close the open letters of the old durables, and release what is
//     parked (dvmsg inbox parked): nobody reads either afterwards.
//  2. Stop all instances, and read the lowest ack floor of the old durables
//     (nats consumer info).
//  3. Declare the new durables with topology.StartAtSequence of that floor plus
//     one, and start their consumers. What comes again is absorbed by the inbox.
//  4. Delete the old durables.
//
// # Attempts
//
// With Config.Store, which is the handlers' inbox, an attempt is a handler start.
// A first delivery writes nothing; from the first failure on they are counted in
// the database. What no handler saw, a shutdown that interrupts one, and an
// outage of that database cost nothing. A start is committed before the handler
// runs, so a message that kills its process is found out: one with starts that
// never ended runs alone in its process, so that no neighbour is blamed, and
// after three of them in a row it is a dead letter of class crash: at the fourth
// death if the first delivery, of which nothing is written, was one. To run alone it
// waits for AckWait, and while it does no handler begins; if handlers that were
// begun before take longer, it is given back until they are done. One that ignores
// the end of its ctx is not waited for.
//
// Without a Store, Config.MaxAttempts is compared with the server's delivery
// count, an upper bound of handler starts: a delivery that met a dying process or
// a shutdown counts although no handler finished it.
//
// # Long delays
//
// A delayed message holds one of the durable's MaxAckPending places, so that a
// handful of long delays would stop it for everybody. With Config.Store a message
// that is delayed for longer than Config.ParkAfter is parked: moved to the
// store's database, and acknowledged when that has committed. When it is due, a
// replica of this durable handles it like any other: the same worker slots,
// checks, handlers and verdicts, and attempts that go on counting. With inbox.On
// the effect, the inbox row and the end of the parking are one transaction;
// with [On] the message leaves the store after its handler succeeded. A dead
// letter is stored before the message leaves it.
//
// What the stream brings of a parked message, be it a redelivery or a duplicate,
// is acknowledged without a handler; with [On] that holds for redeliveries only.
// A replica handles a parked message under a claim, which lasts for AckWait and
// is extended while the handler runs; when the process dies, another one takes
// over after that, and an interrupted one is given back at once. What was parked
// by a replica that died, or made due by an operator, is found within 5 s.
//
// Without a Store, and with MaxAckPending 1 and no Order, where followers wait for
// a failing message, nothing is parked and delays are cut to 10 min ([MaxRetryAfter]). So
// they are while Config.MaxParked messages are parked, which Ready tells, or
// while the database refuses. To tell a stream from one that was made anew under
// its name, a consumer that parks needs to publish to $JS.API.STREAM.INFO.<stream>.
//
// # Telemetry
//
// Config.MeterProvider and Config.TracerProvider, by default the global ones, get
// metrics and a span for each attempt, which is a child of the message's creation;
// see docs/METRICS.md and docs/TELEMETRY.md. Without an SDK they cost nothing.
//
// While a consumer runs it asks the server now and then for the oldest message that
// is not settled: [Consumer.Alarm] tells when that has half of the age at which the
// stream removes it. It needs to publish to $JS.API.CONSUMER.INFO.<stream>.<durable>,
// $JS.API.STREAM.INFO.<stream> and $JS.API.STREAM.MSG.GET.<stream>.
//
// # Mass failure
//
// When Config.MassFailure different messages fail one after the other and none
// succeeds, it is the service or what it depends on that is broken. Then one
// message at a time is fetched, at intervals that grow from 1 s to 30 s, until
// one succeeds; Ready says so. The backlog stays where it is. A handler that asks
// for a delay with envelope.RetryAfter does not count as failing, nor does a dead
// letter of class decode or security.
//
// # Replays
//
// An operator's replay of a dead letter arrives on dv.<service>.replay.<durable>
// and is read by a second durable, <durable>__replay, that shares the worker
// slots. Handlers see the original subject, and Delivery.LetterID. On success
// the letter is resolved before the replay is acknowledged, and waited for if that
// is refused: the handler does not run again. A failed replay goes
// through the same verdicts and becomes a letter with the same id again. A message
// on that subject that names no letter, or no subject that a letter can be
// about, is no replay: it is terminated, logged and counted (Stats.Rejected),
// and the letter it may have meant stays as it is.
//
// # Concurrency
//
// Handlers run concurrently and must be safe for it. Run is called once; Ready
// and Stats may be called at any time from anywhere.
//
// # Errors
//
// Run returns nil after a clean stop, *DurableMissingError and
// *topology.DriftError when a durable is not there or not as declared at the
// start, *DrainError when handlers ignored their ctx, and ErrConnectionClosed.
// Everything else is waited for and shown by Ready.
//
// # Security
//
// Payloads are never logged. Handlers' error texts are, cut to 512 bytes: keep
// secrets out of them. Whoever may publish on a stream may set any header, so
// only deliveries of the replay durable are read as replays, and a delivery is
// told from a status of the server by its reply subject, which no publisher
// sets.
package consumer
