// Package natsconn holds the one NATS connection of a process (requirement
// M1): it waits for the server, reconnects for ever without spinning, says why
// it is not ready, bounds every call, and closes within a budget.
//
// # Usage
//
//	conn, err := natsconn.Dial(ctx, natsconn.Config{
//		URL:     os.Getenv("NATS_URL"),
//		Service: subject.Maskin,
//	})
//	if err != nil {
//		return err
//	}
//	defer conn.Drain(context.WithoutCancel(ctx))
//
//	err = topology.Ensure(ctx, conn.JetStream(), set)
//
// A readiness endpoint asks Ready and prints the error; a liveness endpoint
// answers 200 whatever Ready says, because a restart of this process does not
// bring the broker back (requirement M2). The HTTP server is usually up before
// Dial returns: keep the connection in an atomic.Pointer[natsconn.Conn] and
// call Load().Ready(), which on a nil *Conn says that it was never connected.
//
// # Guarantees
//
//   - Dial waits for a server that is down, with one log line that says so and
//     how to fail fast instead; Config.FailFast turns the waiting off.
//   - A connection that was up once reconnects until Drain, at most about two
//     attempts a second for each pass over the servers.
//   - A publish while disconnected fails at once. Nothing is kept in a client
//     buffer whose fate is unknown; the outbox keeps it instead.
//   - A refused publish, which to its caller is only a timeout, is a readiness
//     reason with the subject, and part of the error that Do returns.
//   - Asynchronous publishes end after five seconds with or without an answer.
//   - Drain returns within its budget, and the connection is closed when it does.
//   - One log line for each change of state, none for each attempt.
//
// # Concurrency
//
// A *Conn is safe for concurrent use by any number of goroutines; so are the
// *nats.Conn and jetstream.JetStream it hands out. Dial starts the client's own
// goroutines, which end with Drain.
//
// # Errors
//
// Dial, Ready and Do return errors that errors.AsType finds as *NotReadyError
// or *BreakerOpenError. A refused subject matches nats.ErrPermissionViolation,
// an open breaker ErrBreakerOpen.
//
// # Configuration
//
// The zero Config connects to nats://127.0.0.1:4222 and is right for a
// developer's machine. What must hold for the promises above (the handlers, the
// unlimited reconnects, the missing buffer) cannot be changed by Config.Options.
//
// # Security
//
// User names, passwords and tokens in a URL never reach a log line or an error.
package natsconn
