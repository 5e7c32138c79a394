package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	wmnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
)

// watermillConsumed is smaller than ours: it is slower, and the rate is the same.
const watermillConsumed = 100_000

// watermill measures Watermill's JetStream subscriber with the handler that ours
// has: it reads the envelope and the data in it, with encoding/json and without
// our checks, and counts. In Watermill's favour no router stands between. By
// default it waits for the server's word on each acknowledgement; ackAsync is
// what else it can do, and what ours does.
func (f *feed) watermill(subscribers int, ackAsync bool) func(context.Context) (float64, error) {
	return func(ctx context.Context) (rate float64, err error) {
		nc, err := nats.Connect(f.conn.NATS().ConnectedUrl()) // which closing the subscriber drains
		if err != nil {
			return 0, err
		}
		defer nc.Close()
		subscriber, err := wmnats.NewSubscriberWithNatsConn(nc, wmnats.SubscriberSubscriptionConfig{
			SubscribersCount: subscribers,
			QueueGroupPrefix: "bench",
			Unmarshaler:      &wmnats.NATSMarshaler{},
			JetStream: wmnats.JetStreamConfig{
				AckAsync: ackAsync, DurablePrefix: "bench",
				SubscribeOptions: []nats.SubOpt{nats.DeliverAll(), nats.AckExplicit(), nats.MaxAckPending(inFlight)},
			},
		}, nil)
		if err != nil {
			return 0, err
		}
		rate, err = f.receive(ctx, subscriber, min(f.size, watermillConsumed))
		err = errors.Join(err, subscriber.Close())
		// Who unsubscribes deletes a durable that it made, unless others share it.
		_ = f.conn.JetStream().DeleteConsumer(ctx, stream().Name, "bench")
		return rate, err
	}
}

func (f *feed) receive(ctx context.Context, subscriber message.Subscriber, n int) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	messages, err := subscriber.Subscribe(ctx, counter.Subject().String())
	if err != nil {
		return 0, err
	}
	for range n {
		select {
		case m := <-messages:
			if err := readPlainly(m.Payload); err != nil {
				return 0, err
			}
			m.Ack()
		case <-time.After(time.Minute):
			return 0, errors.New("the subscriber delivered nothing for a minute")
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// readPlainly reads an envelope as services without a library do.
func readPlainly(payload []byte) error {
	var e struct {
		ID          string  `json:"id"`
		Type        string  `json:"type"`
		Source      string  `json:"source"`
		Subject     string  `json:"subject"`
		Time        string  `json:"time"`
		Tenant      string  `json:"tenant_id"`
		Correlation string  `json:"correlation_id"`
		Causation   string  `json:"causation_id"`
		Data        counted `json:"data"`
	}
	return json.Unmarshal(payload, &e)
}
