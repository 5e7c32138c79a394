package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// A whole consumer: declare, create, run. In a service js comes from natsconn
// and dead from dlq.Open.
func Example() {
	run := func(ctx context.Context, js jetstream.JetStream, dead consumer.DeadLetterer) error {
		events := topology.Events(subject.Maskin, topology.Limits{}) // owned by maskin
		durable, err := topology.DurableFrom(subject.Plattform, subject.Maskin)
		if err != nil {
			return err
		}
		declared := topology.Consumer{
			Durable: durable, Stream: events, Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
		}
		if err := topology.Ensure(ctx, js, topology.Set{
			Service: subject.Plattform,
			Streams: []topology.Stream{
				events,
				topology.DeadLetters(subject.Plattform, topology.Limits{}),
				topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
			},
			Consumers: []topology.Consumer{declared},
		}); err != nil {
			return err
		}
		c, err := consumer.New(js, dead, consumer.Config{Consumer: declared, MaxAttempts: 8},
			consumer.On(provisioned, func(ctx context.Context, m envelope.Received[serverV1]) error {
				fmt.Println(m.Envelope.ID, m.Data.Hostname)
				return nil
			}))
		if err != nil {
			return err
		}
		return c.Run(ctx) // until ctx ends
	}
	_ = run
}

// A constructor reports everything that is wrong, and does nothing else.
func ExampleNew() {
	_, err := consumer.New(nil, nil, consumer.Config{
		Consumer:    topology.Consumer{Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, topology.Limits{}), MaxAckPending: 1},
		Concurrency: 4,
	}, consumer.On(provisioned, func(context.Context, envelope.Received[serverV1]) error { return nil }))
	fmt.Println(err)
	// Output:
	// consumer: Config.Concurrency: 4 is out of range; use 1 to 1 (the durable's MaxAckPending, at most 1000: workers beyond it would never get a message)
	// consumer: js: is nil; pass the JetStream context of the process's connection
	// consumer: dead: is nil; pass the queue of dlq.Open, since what cannot be handled must go somewhere
}

// The handler's error is the verdict.
func ExampleOn() {
	route := consumer.On(provisioned, func(_ context.Context, m envelope.Received[serverV1]) error {
		switch m.Data.Hostname {
		case "":
			return envelope.Permanent(errors.New("no hostname")) // a dead letter now
		case "busy":
			return envelope.RetryAfter(30*time.Second, nil) // not yet
		}
		return nil
	})
	fmt.Println(route.Type, route.Version)
	// Output: maskin.server.provisioned 1
}
