package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
)

// message is what lies at one place of a stream.
type message struct {
	stream   string
	sequence uint64
	storedAt time.Time
	subject  string
	envelope *envelope.Envelope
}

var errSilent = errors.New("the broker is silent")

// readStream reads a stream from its first message to its last.
func readStream(ctx context.Context, js jetstream.JetStream, name string) ([]message, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", name, err)
	}
	total := int(stream.CachedInfo().State.Msgs)
	reader, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", name, err)
	}
	all := make([]message, 0, total)
	for len(all) < total {
		// Never more than there are: the server would wait for them.
		batch, err := reader.Fetch(min(500, total-len(all)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, fmt.Errorf("read stream %s: %w", name, err)
		}
		before := len(all)
		for m := range batch.Messages() {
			decoded, err := decodeStored(name, m)
			if err != nil {
				return nil, err
			}
			all = append(all, decoded)
		}
		if err := batch.Error(); err != nil || len(all) == before {
			return nil, fmt.Errorf("read stream %s: %d of %d messages came: %w", name, len(all), total, cmp.Or(err, errSilent))
		}
	}
	return all, nil
}

func decodeStored(stream string, m jetstream.Msg) (message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return message{}, fmt.Errorf("read stream %s: %w", stream, err)
	}
	e, err := envelope.Decode(m.Data())
	if err != nil {
		return message{}, fmt.Errorf("read message %d of stream %s: %w", meta.Sequence.Stream, stream, err)
	}
	return message{stream, meta.Sequence.Stream, meta.Timestamp, m.Subject(), e}, nil
}

// revision is what all four messages of maskin carry.
func (m message) revision() (int, error) {
	var data struct {
		Revision int `json:"revision"`
	}
	if err := json.Unmarshal(m.envelope.Data, &data); err != nil {
		return 0, fmt.Errorf("read revision of message %d of stream %s: %w", m.sequence, m.stream, err)
	}
	return data.Revision, nil
}
