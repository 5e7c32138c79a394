// Package twosites runs two sites inside this process: at each a nats-server or a
// cluster of three, with JetStream in a domain of its own, joined by leafnode links
// that can be disturbed. It is for tests, examples and benchmarks.
//
// # Usage
//
//	pair, err := twosites.Start(ctx, dir, twosites.Options{A: "osl1", B: "trd1", Nodes: 3, Flows: flows})
//	if err != nil {
//		return err
//	}
//	defer pair.Stop()
//	pair.Cut()
//	pair.Heal()
//
// # Guarantees
//
// Both sites run what topology.Network.ServerConfig writes, with its rights and its
// deny lists. Everything between them passes the links: nothing else is advertised.
//
// # Concurrency
//
// All methods are safe for concurrent use. Stop leaves no goroutine behind.
package twosites
