package natsserver

import "go.uber.org/goleak"

// StillWaiting has goleak ignore what ends by itself, but later than a test binary.
// Of servers in it, when the test joined two sites: a question to the other site
// that was lost with the link is waited for up to 30 s, also after the server was
// stopped (nats-server 2.15). Of nats.go: the reader of a page whose consumer was
// deleted before all of it had come, as by a pass that has seen enough, waits for a
// second.
func StillWaiting(more ...goleak.Option) []goleak.Option {
	const stream = "github.com/nats-io/nats-server/v2/server.(*stream)."
	return append(more,
		goleak.IgnoreAnyFunction(stream+"trySetupSourceConsumer.func3"),
		goleak.IgnoreAnyFunction(stream+"tryDeleteSourcingConsumer.func1"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats.go/jetstream.(*pullConsumer).fetch.func1"))
}
