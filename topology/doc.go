// Package topology declares the streams and consumers of a service, compares
// the declaration with the server, and applies it.
//
// # Usage
//
// A declaration is a value. It needs no server to be made, checked, printed or
// compared (requirement T6):
//
//	events := topology.Events(subject.Maskin, limits)       // DV_MASKIN_EVT, another service's
//	durable, err := topology.DurableFrom(subject.Plattform, subject.Maskin)
//	set := topology.Set{
//		Service: subject.Plattform,
//		Streams: []topology.Stream{
//			topology.Events(subject.Plattform, limits),         // DV_PLATTFORM_EVT, ours
//			topology.DeadLetters(subject.Plattform, limits),    // whoever consumes has these two
//			topology.DeadLetterOps(subject.Plattform, limits),
//			events,
//		},
//		Consumers: []topology.Consumer{{
//			Durable: durable, Stream: events,
//			Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
//		}},
//	}
//	err = topology.Ensure(ctx, conn.JetStream(), set)
//
// There are four things to do with it on a server:
//
//   - Ensure, by a service when it starts: creates what is missing of its own,
//     verifies everything else.
//   - Verify, by a service whose user may not create: reads only.
//   - Plan and Apply, by an operator: show, then make, the changes that bring
//     our own streams and durables to the declaration.
//
// # Guarantees
//
//   - Every setting that the platform relies on is part of the contract, also
//     those that no field declares, and is verified (requirement T1). A setting
//     that a newer client knows and this package does not decide about fails a
//     test here.
//   - Ensure and Verify alter nothing that exists. Nothing deletes. The stream
//     of another service is never created and never changed (requirement T3).
//   - Apply sends back what it does not know as it was, and changes nothing at
//     all if one change is impossible, or destructive and not allowed.
//   - On a command stream no two durables receive the same command, whoever
//     created them (requirement T7).
//   - A durable begins where its declaration says; there is no default
//     (requirement T9). Nothing in the library creates a durable but Ensure and
//     Apply. One that existed and vanished is created at its Start again: it
//     cannot be told from one that never existed.
//   - Names are generated, and equal in all replicas (requirement T5).
//
// What is not covered: Verify sees the version of the server that it is
// connected to, not of the others in a cluster; whether a source moves.
//
// # Sites
//
// A [Network] declares the sites of the platform and the flows between them.
// [Network.At] makes the set of a service at one of them: with the copies of
// other sites' events, the commands that other sites send, and those that wait
// for them. [Network.ServerConfig] writes the part of nats-server's configuration
// that a link rests on, and [Network.CheckServer] holds a configuration against
// it. docs/DATACENTERS.md has the picture.
//
// # Concurrency
//
// All types are plain values; all functions are safe for concurrent use. Any
// number of replicas may call Ensure in the same moment. Two operators who
// apply in the same moment may each undo the other's change to one stream: the
// server has no conditional update.
//
// # Errors
//
// Without a server: *FieldError and *OverlapError, all at once. With one:
// *MissingError, *DriftError, *OverlapError, *ImpossibleError,
// *DestructiveError, joined, and errors of the JetStream API with what was
// asked and what to do; errors.AsType finds them. While a cluster has no leader
// or no room yet, calls wait until their context ends, or for a minute if it
// has no deadline.
//
// # Configuration
//
// Limits carries what differs between environments: replicas, sizes, ages.
// Consumer.FromEnv takes two settings of a durable from the environment. A Set
// has a JSON form, the contract file, for operators and other languages.
//
// # Security
//
// ParseSet reads files that people edit: it is strict, so that a misspelt or
// repeated name is an error and not a default.
package topology
