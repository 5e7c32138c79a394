package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/internal/servers"
	"codeberg.org/dataverket/messaging/examples/schemaversions/maskinevents"
	"codeberg.org/dataverket/messaging/subject"
)

// release is what one release of a reader does with the event.
type release func(r *reader) envelope.Route

// readsFirst is a release that knows version 1.
func readsFirst(r *reader) envelope.Route {
	return consumer.On(maskinevents.FirstServerProvisioned, func(_ context.Context, m envelope.Received[maskinevents.ServerProvisionedV1]) error {
		r.note(m.Envelope, "hostname "+m.Data.Hostname)
		return nil
	})
}

// readsSecond is a release that knows version 2, and version 1 by the declaration.
func readsSecond(r *reader) envelope.Route {
	return consumer.On(maskinevents.ServerProvisioned, func(_ context.Context, m envelope.Received[maskinevents.ServerProvisionedV2]) error {
		r.note(m.Envelope, "host "+m.Data.Host+" in "+m.Data.Domain)
		return nil
	})
}

// reader is a service that handles the event, in the release that is deployed.
type reader struct {
	*platform
	service subject.Service
	dead    *dlq.Queue
	running func() error // stops what is deployed, nil while nothing is

	mu    sync.Mutex
	notes map[string]string // by server
}

// note remembers what a handler got. It is idempotent, so it needs no inbox.
func (r *reader) note(e *envelope.Envelope, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes[e.Subject] = fmt.Sprintf("%-9s was sent version %d: %s", r.service, e.SchemaVersion(), what)
}

func (r *reader) noted(server string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notes[server]
}

// deploy replaces the release that runs; its durable keeps the place.
func (r *reader) deploy(ctx context.Context, next release) error {
	if err := r.stop(); err != nil {
		return err
	}
	declared := durableOf(r.service)
	c, err := consumer.New(r.js, r.dead, consumer.Config{Consumer: declared, Logger: slog.New(slog.DiscardHandler)}, next(r))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r.running = func() error { cancel(); return <-done }
	return nil
}

// stop ends what is deployed.
func (r *reader) stop() error {
	if r.running == nil {
		return nil
	}
	running := r.running
	r.running = nil
	return running()
}

// letter waits for the reader's dead letter.
func (r *reader) letter(ctx context.Context) (found dlq.Letter, err error) {
	err = servers.Await(ctx, func() (bool, error) {
		for found, err = range r.dead.List(ctx, dlq.Filter{}) {
			return true, err
		}
		return false, nil
	})
	return found, err
}

// showLetter prints what the reader could not handle, and why.
func (r *reader) showLetter(ctx context.Context) error {
	l, err := r.letter(ctx)
	if err == nil {
		fmt.Printf("  %-9s has a dead letter of class %s: %s\n", r.service, l.Class, l.Error)
	}
	return err
}

// replay is the operator's part, as "dvmsg dlq replay" does it.
func (r *reader) replay(ctx context.Context) error {
	l, err := r.letter(ctx)
	if err == nil {
		_, err = r.dead.Replay(ctx, l.ID, dlq.Request{By: "operator:ola", Reason: "nett reads version 2 now"})
	}
	return err
}
