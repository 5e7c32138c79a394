// Package dlq keeps the dead letters of a service: messages that a durable could
// not handle, with everything that is needed to understand, find and replay them
// (requirements Q1 to Q4).
//
// # Usage
//
// A consumer gets a [*Queue] as the place where messages go that it gives up on;
// *Queue satisfies consumer.DeadLetterer:
//
//	dead, err := dlq.Open(ctx, conn.JetStream(), subject.Plattform, dlq.Config{})
//	if err != nil {
//		return err
//	}
//	cons, err := consumer.New(conn.JetStream(), dead, consumer.Config{Consumer: servers}, routes...)
//
// An operator, or a console, opens the same queue, lists what needs attention,
// looks at a letter and replays it once the cause is gone:
//
//	for letter, err := range dead.List(ctx, dlq.Filter{CorrelationID: id}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(letter.ID, letter.Class, letter.Error)
//	}
//	replay, err := dead.Replay(ctx, letterID, dlq.Request{
//		By: "operator:ola", Reason: "hostname fixed, DV-412",
//	})
//
// After a bad night the letters are many and their causes few. Groups counts what
// failed alike; a [Filter] means some letters, by id, group, workflow, tenant,
// resource, state or time, and is the one way to select several, for looking and
// for acting:
//
//	groups, err := dead.Groups(ctx, dlq.Filter{Since: midnight})
//	report, err := dead.ReplayAll(ctx, dlq.Filter{Fingerprint: groups[0].Fingerprint}, dlq.Request{
//		By: "operator:ola", Reason: "hostname fixed, DV-412", DryRun: true,
//	})
//
// Without DryRun it replays, 50 letters a second unless Request.Rate says
// otherwise; Follow waits for what becomes of them, and List with Filter.Batch
// tells it later. DiscardAll gives letters up, RestoreAll takes that back. With
// Request.Edit, made by [Transform] or [ReplaceData], a replay has other data.
//
// Closed letters stay for 30 days if somebody calls Purge now and then: a service
// from a ticker, or an operator with dvmsg dlq purge.
//
// Stock tools see dead letters too: nats sub 'dv.*.dlq.>'.
//
// # What is stored where
//
//	DV_<SERVICE>_DLQ     dv.<service>.dlq.<original subject>   letters
//	DV_<SERVICE>_DLQOPS  dv.<service>.dlqmark.<letter id>      marks
//	                     dv.<service>.replay.<durable>         replays
//
// A letter is the original's bytes with headers that say what happened (the
// Header constants of this package and of package envelope). Marks are JSON
// ([Mark]); the last mark of a letter is in force. Marks and replays have a
// stream of their own, so that a letter stream that is full never locks the
// operator out of emptying it. No database is involved: a consumer without one
// needs dead letters as well.
//
// A letter's id is "l" and the first 40 hex digits of the SHA-256 over five
// texts, each behind its length in bytes as four bytes, big end first:
//
//	"dv.letter.v1", durable, stream, "envelope", envelope id
//	"dv.letter.v1", durable, stream, "position", stored at in Unix nanoseconds, sequence   (six)
//
// The second form is for a message of which nothing decoded, whose envelope was
// caught contradicting its headers, or whose first form is taken by another
// message. A replay that fails again keeps the letter's id.
//
// # States
//
//	         Replay              published            Resolve
//	open ───────────▶ claimed ───────────▶ replayed ───────────▶ resolved ─────┐
//	 ▲ ▲                 │ ▲                  │                     │          │ Purge
//	 │ │                 └─┘ taken over       │                     │          ▼
//	 │ └──────────────────────────────────────┴─────────────────────┤       removed
//	 │                    failed again: a new copy of the letter    │          ▲
//	 │       Discard                                                │          │
//	 ├───────────────▶ discarded ───────────────────────────────────┴──────────┘
//	 └───────────────────┘ Restore
//
// A state is derived from the newest copy of the letter and the last mark. The
// newest copy is the one of the highest round, and of several the last. A copy
// that the mark does not know, and that failed no earlier than in the round of
// the mark, opens the letter again, also a discarded one: nothing is hidden that
// nobody has seen. Resolved, discarded and removed letters are closed.
//
// # Guarantees
//
//   - DeadLetter returns nil only after the server has acknowledged the letter,
//     in the right stream. The same failure reported again within the duplicate
//     window (two minutes) is stored once, and listed once for ever.
//   - A letter's bytes are never changed; an edit is of a replay. The original's
//     headers are kept, those of the server (Nats-*) excepted, up to 64 values
//     and 16 KiB; what is cut is counted. A message so large that no letter
//     around it fits is kept without its bytes, which are then only in its own
//     stream.
//   - Of any number of operators that replay one letter at once, exactly one
//     does. The server stores a replay only while its claim is the last mark, so
//     that also one who slept through the loss of his claim changes nothing.
//     The same holds for whoever discards and restores, and for calls that act on
//     many letters: each letter is claimed by itself.
//   - A crash at any point loses no letter and replays none twice. What a claim
//     left undone, the next Replay finds out and finishes in the same round; a
//     call with a Filter is finished by doing it again.
//   - An edit changes the data and not one other byte of the message. It keeps its
//     envelope id, so the inbox applies it once, edited or not.
//   - Replays leave a fifth of their stream to marks, so that letters can be resolved,
//     discarded and purged however many were replayed.
//   - What is not closed never expires. Open refuses streams that would let it.
//     Purge leaves nothing half, wherever it ends.
//   - A replay reaches the durable that gave up, and nobody else: no other
//     consumer, client or site. Nothing is ever replayed by itself.
//   - A letter without a mark, or with one that cannot be read, stays visible.
//
// Not guaranteed: that a replay has an effect. If the effect is there already,
// the inbox skips the replay and the letter is resolved.
//
// # Concurrency
//
// A *Queue is safe for concurrent use by any number of goroutines, and any number
// of processes may have one of the same service. It starts no goroutine that
// outlives a call.
//
// # Errors
//
// [ErrFull], [ErrNoStream], [ErrNoDurable], [ErrNotFound], [ErrDuplicate],
// [ErrNoData] and [ErrForgotten] are for errors.Is; [*ConflictError],
// [*ResolvedError], [*SecurityError], [*AddressError], [*EditError],
// [*TooManyError], [*MalformedError] and [*FieldError] for errors.AsType. An error
// that the server did not send never means that nothing was stored; every method
// may be called again.
//
// # Size
//
// A listing reads the headers of all letters, whatever it selects. The index that
// finds a letter by its id, the counts of groups and the selection of letters hold
// 100 to 200 bytes of each letter.
//
// # Rights
//
// A consumer publishes dv.<service>.dlq.> and dv.<service>.dlqmark.* and reads
// $JS.API.STREAM.INFO and $JS.API.STREAM.MSG.GET of both streams. An operator
// also publishes dv.<service>.replay.* and reads through
// $JS.API.CONSUMER.{CREATE,INFO,DELETE} and $JS.API.CONSUMER.MSG.NEXT of both.
// Who purges also publishes $JS.API.STREAM.MSG.DELETE of both and
// $JS.API.STREAM.PURGE of DV_<SERVICE>_DLQOPS.
//
// # Security
//
// Letters hold what the platform's users wrote. List, Groups, marks and the log
// never show data; Show does, and so does the dry run of an edit, so ask who is
// looking first. What a letter says about a
// message of class decode comes from its headers and is a claim of whoever
// published it. A contradiction between headers and envelope is kept in the
// letter as far as there is room, and a letter of class security is never
// replayed, edited or not: neither makes a message honest.
package dlq
