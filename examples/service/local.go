package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// local is a broker and a database that vanish with the process, for trying the
// service out. A copy of this service has none of it.
type local struct {
	dir      string
	nats     *natsserver.Server
	postgres *pgserver.Server
}

// startLocal starts both servers and does what other services would have done: it
// creates their streams, and announces one server.
func startLocal(ctx context.Context) (_ *local, err error) {
	l := &local{}
	defer func() {
		if err != nil {
			l.stop()
		}
	}()
	if l.dir, err = os.MkdirTemp("", "plattform-"); err != nil {
		return nil, err
	}
	if l.postgres, err = pgserver.Start(ctx, pgserver.Options{CachedInit: true}); err != nil {
		return nil, err
	}
	if l.nats, err = natsserver.Start(ctx, l.dir, natsserver.Options{TCP: true}); err != nil {
		return nil, err
	}
	conn, err := natsconn.Dial(ctx, natsconn.Config{URL: l.nats.URL(), FailFast: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	err = others(ctx, conn.JetStream())
	return l, errors.Join(err, conn.Drain(ctx))
}

// stop ends what startLocal started.
func (l *local) stop() {
	if l.nats != nil {
		l.nats.Stop()
	}
	if l.postgres != nil {
		_ = l.postgres.Stop() // it vanishes with the process in any case
	}
	_ = os.RemoveAll(l.dir)
}

// others is maskin and sentral, as far as plattform needs them.
func others(ctx context.Context, js jetstream.JetStream) error {
	for _, set := range []topology.Set{
		{Service: subject.Maskin, Streams: []topology.Stream{maskinevents.Events()}},
		{Service: subject.Sentral, Streams: []topology.Stream{taskEvents()}},
	} {
		if err := topology.Ensure(ctx, js, set); err != nil {
			return err
		}
	}
	ctx = envelope.WithOrigin(ctx, envelope.NewOrigin("user:kari", "tenant-1"))
	m, err := envelope.New(ctx, subject.Maskin, maskinevents.ServerProvisioned.New("server-1",
		maskinevents.ServerProvisionedV1{Hostname: "db1.oslo.example", Site: "osl1", Size: "small", Revision: 1}))
	if err != nil {
		return err
	}
	return publish(ctx, js, m)
}

// publish sends a message without an outbox: for who stands in for another service.
func publish(ctx context.Context, js jetstream.JetStream, m envelope.Message) error {
	data, err := m.Envelope.Encode()
	if err != nil {
		return err
	}
	_, err = js.PublishMsg(ctx, &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
	return err
}
