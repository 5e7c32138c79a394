// Package subject builds and reads the dv.* subjects of the Dataverket platform
// and the patterns over them.
//
// There are two types, and that is the point (requirement S3): a [Subject] is
// concrete and can be published to, a [Filter] is a pattern and can be subscribed
// to. Neither converts into the other by accident; [Exactly] is the one bridge.
// The package uses the standard library only.
//
// # Usage
//
// A subject known when the program is written is a package-level value:
//
//	var provision = subject.Must(subject.Cmd(subject.Maskin, "provision"))
//
// A subject from the wire is parsed, and asked for its parts:
//
//	s, err := subject.Parse(msg.Subject())
//	if err == nil && s.Family() == subject.FamilyEvent {
//		log.Info("event", "service", s.Service(), "entity", s.Entity(), "verb", s.Verb())
//	}
//
// A filter says what a stream holds or a consumer wants (requirement S4):
//
//	subject.EventsOf(subject.Maskin)                   // dv.maskin.evt.>
//	subject.EntityEvents(subject.Maskin, "server")     // dv.maskin.evt.server.*
//	subject.VerbEvents(subject.Maskin, "provisioned")  // dv.maskin.evt.*.provisioned
//
// # Grammar
//
// Families (requirements S1 and S5), with their builder and an example:
//
//	command           dv.<service>.cmd.<action>            Cmd      dv.maskin.cmd.provision
//	event             dv.<service>.evt.<entity>.<verb>     Evt      dv.maskin.evt.server.provisioned
//	task event        dv.task.evt.<verb>                   TaskEvt  dv.task.evt.updated
//	rpc               dv.rpc.<service>.<operation>         RPC      dv.rpc.identitet.introspect_token
//	dead letter       dv.<service>.dlq.<original>          DLQ      dv.plattform.dlq.dv.maskin.evt.server.provisioned
//	dead letter mark  dv.<service>.dlqmark.<letter id>     DLQMark  dv.plattform.dlqmark.l + 40 hex digits
//	replay            dv.<service>.replay.<durable>        Replay   dv.plattform.replay.plattform__from_maskin
//	command to a site dv.xdc.<site>.<service>.cmd.<action> CmdAt    dv.xdc.trd1.maskin.cmd.provision
//
// where
//
//	service    = "sentral" | "identitet" | "maskin" | "plattform" | "tjeneste" | "objekt" | "nett"
//	action, entity, verb, operation, durable
//	           = token
//	token      = a…z { a…z | 0…9 | "_" }       at most MaxToken bytes
//	site       = token                         at most MaxSite bytes, none of cmd, evt, dlq, dlqmark, replay
//	letter id  = "l" 40 × ( 0…9 | a…f )
//	original   = any concrete NATS subject     at most MaxOriginal bytes
//
// A command to a site waits at the site that sends it, and arrives on the subject of
// the command.
//
// The set of services is closed (requirement S2). The service of a command or a
// call is the addressed one, that of an event the emitting one, that of a dead
// letter, a mark or a replay the consuming one. There is no version token: the
// version of a payload is in its envelope (requirement E3).
//
// An original may break every rule above, because a message that breaks them is
// one of those that end as a dead letter. It may not be a dead letter, a mark or
// a replay itself.
//
// A filter is what NATS takes: tokens between dots, * for one token, > as the
// last token for one or more; its first token is dv.
//
// # What no dead letter can embed
//
// JetStream stores a message that a client published to a subject with a
// wildcard token, such as dv.maskin.evt.*, or with a form feed, and a subject up
// to the 4096 bytes of a protocol line (observed with nats-server 2.15). [DLQ]
// refuses these three: the first would be a pattern to whoever subscribes, the
// second no client can subscribe to, the third leaves no room for the prefix. Who
// writes dead letters needs a substitute subject for them, and keeps the original
// in a header.
//
// # Guarantees
//
//   - Every [Subject] but the zero value satisfies the grammar, so code that takes
//     one need not check it again.
//   - [Parse] accepts exactly what the builders return, and Parse(s.String()) == s.
//   - Every [Subject] is matched by the filter of its family and service.
//   - No subject but a dead letter is longer than [MaxLength] bytes.
//   - [Filter.Overlaps] is symmetric, and a filter that covers another overlaps it.
//   - Parse, [Filter.Matches], [Filter.Overlaps] and [Filter.Covers] allocate
//     nothing when they succeed, and take time linear in the text.
//
// # Concurrency
//
// All types are immutable values without hidden state; all functions may be
// called from any number of goroutines.
//
// # Errors
//
// A fault is an [*Error] with the refused text and what to write instead
// (requirement S6). The builders check all arguments and join one Error per
// fault; the parsers return one Error whose Reason lists every fault. Nothing
// panics but [Must] and [MustFilter].
//
//	if e, ok := errors.AsType[*subject.Error](err); ok {
//		fmt.Println(e.What, e.Reason)
//	}
//
// # Security
//
// Subjects from the network are foreign. An Error quotes what it shows and keeps
// 160 bytes of it, so that neither control characters nor size get into a log.
// [Subject.Original] is the one accessor that returns unchecked text: a concrete
// NATS subject, but with any other bytes, not even valid UTF-8.
package subject
