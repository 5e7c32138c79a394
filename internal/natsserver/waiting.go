package natsserver

import "go.uber.org/goleak"

// StillWaiting has goleak ignore what servers in a test binary leave behind when the
// test joined two sites: a question to the other site that was lost with the link is
// waited for up to 30 s, also after the server was stopped (nats-server 2.15).
func StillWaiting(more ...goleak.Option) []goleak.Option {
	const stream = "github.com/nats-io/nats-server/v2/server.(*stream)."
	return append(more,
		goleak.IgnoreAnyFunction(stream+"trySetupSourceConsumer.func3"),
		goleak.IgnoreAnyFunction(stream+"tryDeleteSourcingConsumer.func1"))
}
