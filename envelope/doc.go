// Package envelope is what travels: the Dataverket envelope, its JSON and its
// headers, the origin that ctx carries, and the types that tie a message's name,
// subject and schema version to a Go type. It does no I/O.
//
// # Usage
//
// Declare every message once, in a package that producer and consumer share:
//
//	var ServerProvisioned = envelope.MustEvent[ServerProvisionedV1](envelope.EventSpec{
//		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
//	})
//
// At the edge, where work enters the platform, say who asks and for whom:
//
//	actor, err := envelope.NewActor(envelope.ActorUser, userID)
//	ctx = envelope.WithOrigin(ctx, envelope.NewOrigin(actor, tenantID))
//
// Send by handing drafts to outbox.Enqueue, in the transaction that changes the
// state; correlation, causation, actor, tenant and trace come from ctx:
//
//	err = out.Enqueue(ctx, tx, ServerProvisioned.New(serverID, data))
//
// Handle typed data; what the handler sends is correlated through its ctx, and
// the error it returns is the verdict ([Permanent], [RetryAfter],
// [ErrAlreadyProcessed]):
//
//	consumer.On(ServerProvisioned, func(ctx context.Context, m envelope.Received[ServerProvisionedV1]) error {
//		return index(ctx, m.Envelope.ID, m.Data)
//	})
//
// What a handler asks of another system carries m.IdempotencyKey(effect), so that
// a repeat is recognised there.
//
// Programs that work on messages rather than with them use [Decode],
// [Envelope.Encode], [Envelope.CheckSubject] and [Envelope.CheckHeader].
//
// # Guarantees
//
//   - What [Decode] accepts is valid: every field of requirement E1 is there and
//     follows its rule, and data is a JSON object.
//   - What [Envelope.Encode] writes, Decode accepts, and gives an equal envelope.
//     The same envelope always gives the same bytes, fields in a fixed order.
//   - Unknown top-level fields survive decoding and encoding byte by byte, in
//     their order, behind the known ones; data survives byte by byte
//     (requirement E4).
//   - [New] sends nothing that names no actor, no correlation, or neither a
//     tenant nor platform scope; readers accept an event of a foreign producer
//     without an actor, and no command without one (requirements E5, X2, X4).
//   - Headers are a projection of the envelope, written and checked from one
//     list, so they cannot say anything else.
//   - A schema version belongs to one Go type; data of another type or version is
//     never decoded into it, unless an [Upcast] of the declaration carries that
//     version forward (requirement E3).
//   - At most [MaxSize] bytes are read or written. Decoding takes time linear in
//     the size and two allocations, with unknown fields or escapes a few more, of
//     which no input can make many.
//
// # Concurrency
//
// Types, drafts, options, origins and actors are values and safe to share.
// Envelopes, messages, deliveries and headers are safe to read from several
// goroutines as long as none changes them. All functions are safe for concurrent
// use.
//
// # Errors
//
// Faults of fields are [*FieldError] values, contradictions are [*MismatchError]
// values, always all that were found at once, joined; errors.AsType finds the
// first of a kind. A message that is no data of a type is a [*DecodeError], which
// tells an unknown type, a wrong version and unfit data apart. Everything that keeps bytes from decoding wraps
// [ErrMalformed]: no retry heals it. Size wraps [ErrTooLarge]. No error text
// holds a value of a message or a header, so errors may be logged and stored.
//
// # Security
//
// Two programs that read the same bytes differently are an attack: one checks the
// tenant that the other does not use. These are the places where JSON and header
// readers disagree, and what this package does there.
//
//   - Names that come twice: most readers take the last, some the first. Refused.
//   - Names that differ in case: encoding/json takes TENANT_ID, and also ſource
//     with a long s or a Kelvin sign for k, for the field itself. Refused by the
//     same folding.
//   - Bytes behind the value, a byte order mark, comments, lone surrogates, broken
//     UTF-8, control characters, leading zeros: skipped, replaced or taken by some
//     readers. Refused. U+0000 ends a string in C and is no text in PostgreSQL.
//     Refused everywhere, also inside data.
//   - null and the empty string: "absent" to some readers, a value to others.
//     Refused in the fields of the envelope; absence is the only spelling of
//     absence.
//   - Spellings of one value: an id is a UUID in lower case, a time ends in Z, a
//     schema version has no leading zero. One spelling each, so comparing text is
//     comparing values.
//   - Depth and number of members are bounded (64 levels, 128 members), and no
//     input is read by recursion.
//   - Header names are compared byte by byte by NATS, without case by HTTP:
//     [Envelope.CheckHeader] refuses own names in another case or twice. Values
//     can hold nothing that ends their line.
//
// What is not checked: names inside data. encoding/json reads it into the type's Go
// struct, where the last of equal names wins and case is ignored; nothing that
// decides about access may be read from there when the envelope says it too. And a
// source is only as sure as the broker's permissions: on event subjects
// [Envelope.CheckSubject] makes the two agree, on command subjects they say who
// may send, not who did.
package envelope
