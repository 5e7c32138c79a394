package main

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/internal/servers"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The streams, constant. One broker holds them, so there is one replica.
var (
	limits = topology.Limits{Replicas: 1}
	events = topology.Events(subject.Maskin, limits)
)

// durableOf is a reader's place in maskin's events.
func durableOf(s subject.Service) topology.Consumer {
	return topology.Consumer{
		Durable: s.String() + "__from_maskin", Stream: events,
		Filter: subject.EventsOf(subject.Maskin), Start: topology.StartFirst(),
	}
}

// platform is a broker with what maskin, plattform and nett declare.
type platform struct {
	js   jetstream.JetStream
	dead map[subject.Service]*dlq.Queue
}

// newPlatform starts a broker that vanishes with the process. Call stop also after an
// error.
func newPlatform(ctx context.Context) (p *platform, stop func(), err error) {
	conn, stop, err := servers.Broker(ctx)
	if err != nil {
		return nil, stop, err
	}
	p = &platform{js: conn.JetStream(), dead: map[subject.Service]*dlq.Queue{}}
	return p, stop, p.declare(ctx)
}

// declare creates streams and durables.
func (p *platform) declare(ctx context.Context) error {
	err := topology.Ensure(ctx, p.js, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}})
	for _, s := range []subject.Service{subject.Plattform, subject.Nett} {
		if err != nil {
			return err
		}
		err = topology.Ensure(ctx, p.js, topology.Set{
			Service: s, Consumers: []topology.Consumer{durableOf(s)},
			Streams: []topology.Stream{events, topology.DeadLetters(s, limits), topology.DeadLetterOps(s, limits)},
		})
		if err == nil {
			p.dead[s], err = dlq.Open(ctx, p.js, s, dlq.Config{})
		}
	}
	return err
}

func (p *platform) reader(s subject.Service) *reader {
	return &reader{platform: p, service: s, dead: p.dead[s], notes: map[string]string{}}
}

// send publishes what an instance of maskin has to say. Versions are the same to an
// outbox.
func (p *platform) send(ctx context.Context, d envelope.Draft) error {
	m, err := envelope.New(envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1")), subject.Maskin, d)
	if err != nil {
		return err
	}
	return servers.Publish(ctx, p.js, m)
}

// show waits until the readers have heard of a server, and prints what.
func (p *platform) show(ctx context.Context, server string, readers ...*reader) error {
	for _, r := range readers {
		if err := servers.Await(ctx, func() (bool, error) { return r.noted(server) != "", nil }); err != nil {
			return fmt.Errorf("%s did not hear of %s: %w", r.service, server, err)
		}
		fmt.Println(" ", r.noted(server))
	}
	return nil
}
