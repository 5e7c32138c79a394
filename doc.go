// Package messaging is the map of a library by which the services of the
// Dataverket platform talk to each other: commands and events over NATS
// JetStream, with PostgreSQL as the record of truth.
//
// Its job in one sentence: an event whose transaction committed is handled by
// every consumer, its effect applied once and in key order, or it is a visible
// dead letter; whatever crashes in between.
//
// The root holds no code. A message takes this way through the packages:
//
//	envelope   a typed message: its JSON, its headers, its origin in ctx
//	outbox     Enqueue in the transaction that changes the state;
//	           the Relay publishes what committed to JetStream
//	consumer   pulls from a durable, calls the handler, acts on its verdict
//	inbox      effect and "handled" in one transaction: once, whatever comes twice
//	dlq        what could not be handled: list, show, replay
//	task       the life of a long-running command, for whoever waits for it
//
// and stands on these:
//
//	subject    the names: dv.<service>.cmd.<action>, dv.<service>.evt.<entity>.<verb>, …
//	topology   streams and durables as declared values; verified, created, applied
//	natsconn   the one connection of a process
//	migrate    the tables
//
// A service has a border, too: edge makes the origin of an HTTP request, tenant tells
// row-level security whose rows a transaction may see, health answers probes. With
// two datacenters, sites tells how far each copy is behind.
//
// Around them: dvtest (the test kit for services), cloudevents (for bridges),
// cmd/dvmsg (the operator's command) and examples/quickstart (three services and
// their crashes, in one command). Imports go down only, and a test holds that; docs/DESIGN.md tells
// why things are as they are.
//
// # Start here
//
// A producer needs envelope.Event, outbox.New and outbox.NewRelay. A consumer
// needs consumer.New with routes from inbox.On (with a database) or consumer.On
// (without), and dlq.Open for what fails. README.md shows both in 40 lines.
package messaging
