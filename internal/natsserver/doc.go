// Package natsserver runs nats-server with JetStream inside this process: a
// single server or a cluster of three, for tests, examples and trying things
// out.
//
// # Usage
//
//	server, err := natsserver.Start(ctx, dir, natsserver.Options{})
//	if err != nil {
//		return err
//	}
//	defer server.Stop()
//	nc, err := nats.Connect(server.URL(), server.Option())
//
// # Guarantees
//
// A single server opens no port unless asked to: clients reach it over an
// in-memory pipe through [Server.Option], also after [Server.Restart].
// With Options.TCP, and in a cluster, ports are free ones of 127.0.0.1 and stay
// the same over a restart, as does the store directory, which belongs to the
// caller.
//
// The store's size limit is lifted, so that streams may declare the sizes they
// have in production (JetStream sets a stream's MaxBytes aside when it is
// created) on a machine with a small disk.
//
// The servers are the real thing but share our process: a Stop is an orderly
// shutdown, and a crash needs a process of its own.
//
// # Concurrency
//
// All methods are safe for concurrent use. Stop leaves no goroutine behind.
package natsserver
