package consumer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/topology"
)

// lookupTimeout bounds one look-up. While a durable has no leader nobody
// answers, and the next look-up is the cure.
const lookupTimeout = 2 * time.Second

// newPull prepares the pull of a durable; openSource completes it.
func (c *Consumer) newPull(d durable) *pull {
	return &pull{
		durable: d, gate: c.gate, log: c.log, kick: make(chan struct{}, 1), hasty: probeExpiry / 2,
		inspect:   func(ctx context.Context) error { return c.inspect(ctx, d) },
		connected: func() bool { return c.js.Conn().IsConnected() },
	}
}

// inspect asks the server for the durable and compares what this package relies
// on. It never creates or changes one (requirement T9); the full comparison with
// the declaration is topology.Verify's.
func (c *Consumer) inspect(ctx context.Context, d durable) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	c.created.Store(nil) // the stream may be another one, too
	c.count.requests.Add(1)
	found, err := c.js.Consumer(ctx, d.stream, d.name)
	switch {
	case err == nil:
		return c.compare(d, found.CachedInfo().Config)
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		return &DurableMissingError{Stream: d.stream, Durable: d.name, Err: err}
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		return d.drift("deliver_subject", "none (pull)", "set (push)")
	}
	return fmt.Errorf("consumer: look up durable %q on stream %q: %w", d.name, d.stream, err)
}

// compare returns every difference at once.
func (c *Consumer) compare(d durable, have jetstream.ConsumerConfig) error {
	var faults []error
	if have.AckPolicy != jetstream.AckExplicitPolicy {
		faults = append(faults, d.drift("ack_policy", jetstream.AckExplicitPolicy.String(), have.AckPolicy.String()))
	}
	// Any limit would make the server drop a message from sight silently: the
	// library counts attempts and dead-letters.
	if have.MaxDeliver != -1 {
		faults = append(faults, d.drift("max_deliver", "-1", strconv.Itoa(have.MaxDeliver)))
	}
	// A server-side list distorts the delays that the library asks for.
	if len(have.BackOff) > 0 {
		faults = append(faults, d.drift("backoff", "none", fmt.Sprint(have.BackOff)))
	}
	if want := c.cfg.Consumer.AckWait; have.AckWait != want {
		faults = append(faults, d.drift("ack_wait", want.String(), have.AckWait.String()))
	}
	// Whoever declares one message at a time relies on the order that gives.
	if c.cfg.Consumer.MaxAckPending == 1 && have.MaxAckPending != 1 {
		faults = append(faults, d.drift("max_ack_pending", "1", strconv.Itoa(have.MaxAckPending)))
	}
	return errors.Join(faults...)
}

func (d durable) drift(field, want, got string) error {
	return &topology.DriftError{Object: "consumer " + d.stream + "/" + d.name, Field: field, Want: want, Got: got}
}
