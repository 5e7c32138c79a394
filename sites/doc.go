// Package sites watches the flows between two sites: how far each copy is behind
// its origin, whether the link works, and what has to be done about it.
//
// # Usage
//
// A service runs one watcher at each site, beside its relay and consumers:
//
//	set := network.At(site, maskinSet) // what topology.Ensure was given
//	w, err := sites.New(conn, set, sites.Config{})
//	go w.Run(ctx)
//	h, err := health.New(health.Config{}, …, health.Info("sites", w))
//
// It watches the flows that end at this site in streams that its service owns
// there, and answers for those that begin in its streams. So a flow needs a
// watcher of the owner at both ends. Operators see the same with dvmsg sites
// status.
//
// # How far a copy is behind
//
// The server's own number for it is 0 while the link is down: it tells what the
// origin said last. So the watcher does not ask it. It asks the origin how far its
// stream is, over the link, and then looks whether that is here:
//
//   - An answer proves that the link works. Without one nothing is known of the
//     origin but when it was last heard of (Flow.Heard, Flow.CaughtUp); both sites
//     go on alone.
//   - Flow.CaughtUp is the newest moment of which it is known that the copy held all
//     that the origin held then. Its age is the bound of what a loss of the origin
//     could cost.
//   - If the origin answers and its stream is not heard of, the server's question
//     for more was lost with the link. The server would wait 30 s and more; the
//     watcher makes it ask at once ([topology.Resume]), and again after 5 s, 10 s,
//     20 s and so on, at most 60 s.
//
// # What a copy lacks
//
// An origin that was put back to an earlier state gives out its sequences again, and
// what has one of those never comes by itself. So the watchers compare what both ends
// hold every [Config].Compare, by the ids, and the origin sends again what is missing,
// at most [Config].ResendRate messages a second. Flow.Missing, Resent and OriginLacks
// tell of it; [Verify] does it once. What is sent again comes behind what came
// meanwhile: the order of a key is not kept for it. docs/DATACENTERS.md has the whole.
//
// # Guarantees
//
//   - Any number of replicas may run at a site: all that they do may be done twice.
//     Each asks, and knows, for itself.
//   - A partition is a state ([StateSilent]) and no error, and makes no site
//     unready: to take it out of service would make two sites fail of one link.
//   - Nothing crosses the link but sequences, counts and times: no payload.
//   - It costs each flow one small question over the link every [Config].Every, and
//     two or three to the site's own server.
//
// # On the wire
//
// Core NATS requests on dvsites.<site asked>.<verb>.<stream>, in JSON, version 1,
// answered by one of the watchers there on dvsites.<site that asks>.reply.<…>. The
// link lets both pass where there is a flow ([topology.Network.ServerConfig]). What
// is not exactly of this form, or of another version, is refused with the reason.
//
// # Rights
//
// Besides what its relay and consumers need, the service's NATS user publishes to
// dvsites.<other site>.> and subscribes to dvsites.<own site>.>. Of the JetStream API
// it uses STREAM.INFO.<stream> and STREAM.MSG.GET.<stream> of the streams of its flows
// at this site, and STREAM.UPDATE.<stream> of those that flows end in. To compare it
// reads both ends (CONSUMER.CREATE.<stream>.>, CONSUMER.MSG.NEXT.<stream>.>,
// CONSUMER.INFO.<stream>.>, CONSUMER.DELETE.<stream>.>); to send again it publishes to
// dv.xdr.<other site>.<service>.> and uses STREAM.INFO and STREAM.PURGE of the streams
// of what is resent.
//
// # Errors
//
// [NoAnswerError], [RefusedError], [VersionError] and [MalformedError] tell apart
// a link that is down, a site that cannot answer, one that has to be upgraded, and
// somebody else on its subjects.
package sites
