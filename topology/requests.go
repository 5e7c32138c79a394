package topology

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// document is a configuration as the server sent it, including settings that
// this version of the client does not know. An update replaces the whole
// configuration, so what is not sent back is lost.
type document = map[string]json.RawMessage

// answer is what the API answers to INFO, UPDATE and CREATE.
type answer struct {
	Error  *jetstream.APIError `json:"error"`
	Config document            `json:"config"`
}

// request sends body past the client's typed functions, which would drop what
// they do not know, and returns the configuration in the answer.
func (a api) request(ctx context.Context, what, endpoint string, body any) (document, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("topology: %s: %w", what, err)
		}
	}
	var got answer
	err := a.call(ctx, what, endpoint, func(ctx context.Context) error {
		msg, err := a.js.Conn().RequestWithContext(ctx, a.prefix()+endpoint, data)
		if err != nil {
			return err
		}
		got = answer{}
		if err := json.Unmarshal(msg.Data, &got); err != nil {
			return err
		}
		if got.Error != nil {
			return got.Error
		}
		return nil
	})
	return got.Config, err
}

func streamInfo(name string) string           { return "STREAM.INFO." + name }
func consumerInfo(stream, name string) string { return "CONSUMER.INFO." + stream + "." + name }

// stream reads a stream's configuration; found is false if there is none.
func (a api) stream(ctx context.Context, name string) (cfg streamConfig, found bool, err error) {
	return read[streamConfig](ctx, a, "read "+streamObject(name), streamInfo(name))
}

// consumer reads a consumer's configuration; found is false if there is none.
func (a api) consumer(ctx context.Context, stream, name string) (cfg consumerConfig, found bool, err error) {
	return read[consumerConfig](ctx, a, "read "+consumerObject(stream, name), consumerInfo(stream, name))
}

func read[C any](ctx context.Context, a api, what, endpoint string) (cfg C, found bool, err error) {
	doc, err := a.request(ctx, what, endpoint, nil)
	if err != nil {
		if v, _ := classify(err); v == notThere {
			err = nil
		}
		return cfg, false, err
	}
	data, err := json.Marshal(doc)
	if err == nil {
		err = json.Unmarshal(data, &cfg)
	}
	if err != nil {
		return cfg, false, fmt.Errorf("topology: %s: %w", what, err)
	}
	return cfg, true, nil
}

// consumers lists all consumers of a stream.
func (a api) consumers(ctx context.Context, stream string) (list []consumerConfig, err error) {
	err = a.call(ctx, "list consumers of stream "+stream, "CONSUMER.LIST."+stream, func(ctx context.Context) error {
		s, err := a.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		list = nil
		lister := s.ListConsumers(ctx)
		for info := range lister.Info() { // to the end, or the client's goroutine stays
			list = append(list, info.Config)
		}
		return lister.Err()
	})
	return list, err
}

func (a api) createStream(ctx context.Context, cfg streamConfig) error {
	return a.call(ctx, "create "+streamObject(cfg.Name), "STREAM.CREATE."+cfg.Name, func(ctx context.Context) error {
		_, err := a.js.CreateStream(ctx, cfg)
		return err
	})
}

func (a api) createConsumer(ctx context.Context, stream string, cfg consumerConfig) error {
	what, endpoint := "create "+consumerObject(stream, cfg.Durable), "CONSUMER.CREATE."+stream+"."+cfg.Durable
	return a.call(ctx, what, endpoint, func(ctx context.Context) error {
		_, err := a.js.CreateConsumer(ctx, stream, cfg)
		return err
	})
}
