package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// ApplyOptions are what an operator decides.
type ApplyOptions struct {
	// Destructive allows changes that can lose messages or cannot be undone.
	// Default: false, and if there is one, nothing at all is changed.
	Destructive bool
}

// Apply makes our own streams and durables what is declared, and returns what
// it did. It is the operator's, not the service's: Plan shows what it would do.
//
// It reads everything first. If there is a difference that no update can
// remove, or a destructive one without the option, it changes nothing and
// returns *ImpossibleError or *DestructiveError. Then it creates what is
// missing, and updates by setting the declared settings that differ in the
// configuration that the server has, so that placement, metadata and settings
// of newer servers stay. It deletes nothing.
//
// After an error, the returned changes are those that were done; the rest can
// be applied again.
func Apply(ctx context.Context, js jetstream.JetStream, set Set, opts ApplyOptions) ([]Change, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	a, err := open(ctx, js, set)
	if err != nil {
		return nil, err
	}
	p, err := a.plan(ctx, set)
	if err != nil {
		return nil, err
	}
	if err := refuseDestructive(p.changes(), opts); err != nil {
		return nil, err
	}
	return a.execute(ctx, p)
}

func refuseDestructive(all []Change, opts ApplyOptions) error {
	kept := slices.DeleteFunc(all, func(c Change) bool { return !c.Destructive })
	if len(kept) == 0 || opts.Destructive {
		return nil
	}
	return &DestructiveError{Changes: kept}
}

func (a api) execute(ctx context.Context, p plan) (done []Change, err error) {
	for _, s := range p.streams {
		if err := a.applyStream(ctx, s.of, s.changes); err != nil {
			return done, err
		}
		done = append(done, s.changes...)
	}
	for _, c := range p.consumers {
		if err := a.applyConsumer(ctx, c.of, c.changes); err != nil {
			return done, err
		}
		done = append(done, c.changes...)
	}
	return done, nil
}

func (a api) applyStream(ctx context.Context, s Stream, list []Change) error {
	switch {
	case len(list) == 0:
		return nil
	case list[0].Create:
		return a.createStream(ctx, s.Config())
	}
	what := "update " + streamObject(s.Name)
	current, err := a.request(ctx, what, streamInfo(s.Name), nil)
	if err != nil {
		return err
	}
	next, err := merge(current, s.Config(), keysOf(streamFields(s.Class), list))
	if err != nil {
		return fmt.Errorf("topology: %s: %w", what, err)
	}
	_, err = a.request(ctx, what, "STREAM.UPDATE."+s.Name, next)
	return err
}

// consumerRequest is what the server takes for a consumer.
type consumerRequest struct {
	Stream string   `json:"stream_name"`
	Config document `json:"config"`
	Action string   `json:"action"`
}

func (a api) applyConsumer(ctx context.Context, d wantedDurable, list []Change) error {
	switch {
	case len(list) == 0:
		return nil
	case list[0].Create:
		return a.createConsumer(ctx, d.stream, d.config)
	}
	what, name := "update "+d.object(), d.stream+"."+d.config.Durable
	current, err := a.request(ctx, what, consumerInfo(d.stream, d.config.Durable), nil)
	if err != nil {
		return err
	}
	next, err := merge(current, d.config, keysOf(consumerFields(), list))
	if err != nil {
		return fmt.Errorf("topology: %s: %w", what, err)
	}
	// The filter is part of the subject, so that permissions can be given for
	// it; the server compares the two. Ours has one filter always.
	endpoint := "CONSUMER.CREATE." + name + "." + d.config.FilterSubject
	if filterIn(next) != d.config.FilterSubject {
		endpoint = "CONSUMER.CREATE." + name
	}
	_, err = a.request(ctx, what, endpoint, consumerRequest{d.stream, next, "update"})
	return err
}

func filterIn(d document) string {
	var filter string
	_ = json.Unmarshal(d["filter_subject"], &filter) // absent or null is no filter
	return filter
}

// keysOf returns the keys in the server's JSON of the settings in list.
func keysOf[C any](fields []field[C], list []Change) []string {
	var keys []string
	for _, f := range fields {
		if slices.ContainsFunc(list, func(c Change) bool { return c.Field == f.name }) {
			keys = append(append(keys, f.name), f.also...)
		}
	}
	return keys
}

// merge returns current with the given keys as config has them. A key that
// config leaves out is removed, which is how its zero value is written.
func merge(current document, config any, keys []string) (document, error) {
	if len(current) == 0 {
		return nil, errors.New("the server sent no configuration")
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	var declared document
	if err := json.Unmarshal(data, &declared); err != nil {
		return nil, err
	}
	next := document{}
	for key, value := range current {
		next[key] = value
	}
	for _, key := range keys {
		if value, ok := declared[key]; ok {
			next[key] = value
		} else {
			delete(next, key)
		}
	}
	return next, nil
}
