package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/natsconn"
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

// newPlatform starts a broker that vanishes with the process.
func newPlatform(ctx context.Context) (*platform, func(), error) {
	dir, err := os.MkdirTemp("", "schemaversions-")
	if err != nil {
		return nil, nil, err
	}
	broker, err := natsserver.Start(ctx, dir, natsserver.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	closeBroker := func() { broker.Stop(); _ = os.RemoveAll(dir) }
	conn, err := natsconn.Dial(ctx, natsconn.Config{URL: broker.URL(), FailFast: true, Options: []nats.Option{broker.Option()}})
	if err != nil {
		closeBroker()
		return nil, nil, err
	}
	closeAll := func() { conn.NATS().Close(); closeBroker() }
	p := &platform{js: conn.JetStream(), dead: map[subject.Service]*dlq.Queue{}}
	if err := p.declare(ctx); err != nil {
		closeAll()
		return nil, nil, err
	}
	return p, closeAll, nil
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

// send publishes what an instance of maskin has to say. A service has an outbox in
// between, which keeps it in step with its database; versions are the same to both.
func (p *platform) send(ctx context.Context, d envelope.Draft) error {
	m, err := envelope.New(envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1")), subject.Maskin, d)
	if err != nil {
		return err
	}
	data, err := m.Envelope.Encode()
	if err != nil {
		return err
	}
	_, err = p.js.PublishMsg(ctx, &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
	return err
}

// show waits until the readers have heard of a server, and prints what.
func (p *platform) show(ctx context.Context, server string, readers ...*reader) error {
	for _, r := range readers {
		if err := await(ctx, func() (bool, error) { return r.noted(server) != "", nil }); err != nil {
			return fmt.Errorf("%s did not hear of %s: %w", r.service, server, err)
		}
		fmt.Println(" ", r.noted(server))
	}
	return nil
}

// await asks until the fact is there or ctx ends.
func await(ctx context.Context, fact func() (bool, error)) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := fact(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
