package servers

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
)

// Main is the main function of an example: it runs it until it is done or somebody
// interrupts it, and exits with 1 after an error.
func Main(name string, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// Await asks until the fact is there or ctx ends.
func Await(ctx context.Context, fact func() (bool, error)) error {
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

// Publish sends a message for a service that an example merely plays. A service has
// an outbox in between, which keeps it in step with its database.
func Publish(ctx context.Context, js jetstream.JetStream, m envelope.Message) error {
	data, err := m.Envelope.Encode()
	if err != nil {
		return err
	}
	_, err = js.PublishMsg(ctx, &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data})
	return err
}
