package topology

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Change is one difference between declaration and server that Apply would
// remove.
type Change struct {
	Object string // "stream DV_MASKIN_EVT", "consumer DV_MASKIN_EVT/plattform__from_maskin"
	Field  string // as the server names it; "" when Create
	From   string // on the server; "" when Create
	To     string // declared; "" when Create

	// Create: the object does not exist.
	Create bool

	// Destructive: it can lose messages (fewer subjects, smaller limits or age,
	// fewer replicas, a consumer's filter that no longer matches what it did)
	// or cannot be undone (DenyDelete).
	Destructive bool
}

// String says in one line what would happen.
func (c Change) String() string {
	if c.Create {
		return c.Object + ": create"
	}
	text := fmt.Sprintf("%s: %s from %s to %s", c.Object, c.Field, c.From, c.To)
	if c.Destructive {
		text += " (destructive)"
	}
	return text
}

// Plan lists what Apply would do, in its order, and changes nothing. It covers
// our own streams and durables; streams of other services are theirs to plan.
// Unlike Verify it also lists settings that exceed the declaration, because
// applying the declaration would shrink them.
//
// The error joins an *ImpossibleError for each difference that no update can
// remove, an *OverlapError, a *MissingError for a foreign stream that one of
// our durables needs, and whatever prevented the reading; the list is still
// what could be done.
func Plan(ctx context.Context, js jetstream.JetStream, set Set) ([]Change, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	a, err := open(ctx, js, set)
	if err != nil {
		return nil, err
	}
	p, err := a.plan(ctx, set)
	return p.changes(), err
}

// plan is what is to be done, object by object.
type plan struct {
	streams   []step[Stream]
	consumers []step[wantedDurable]
}

// step is the changes of one object.
type step[T any] struct {
	of      T
	changes []Change
}

func (p plan) changes() []Change {
	var all []Change
	for _, s := range p.streams {
		all = append(all, s.changes...)
	}
	for _, c := range p.consumers {
		all = append(all, c.changes...)
	}
	return all
}

// plan reads everything first, so that Apply refuses before it changes.
func (a api) plan(ctx context.Context, set Set) (plan, error) {
	var (
		p    plan
		errs []error
	)
	comes := map[string]bool{} // streams that do not exist yet, and will
	own, _ := set.own()
	for _, s := range own {
		list, fault := a.planStream(ctx, set, s)
		errs = append(errs, fault...)
		p.streams = append(p.streams, step[Stream]{s, list})
		comes[s.Name] = len(list) == 1 && list[0].Create
	}
	for _, d := range set.durables() {
		list, fault := a.planConsumer(ctx, set, d, comes[d.stream])
		errs = append(errs, fault...)
		p.consumers = append(p.consumers, step[wantedDurable]{d, list})
	}
	return p, errors.Join(errs...)
}

func (a api) planStream(ctx context.Context, set Set, s Stream) ([]Change, []error) {
	got, found, err := a.stream(ctx, s.Name)
	switch {
	case err != nil:
		return nil, []error{err}
	case !found:
		return []Change{{Object: streamObject(s.Name), Create: true}}, nil
	}
	list, errs := changes(streamObject(s.Name), streamFields(s.Class), s.Config(), got)
	if s.Class == ClassCommands {
		errs = append(errs, a.commandOverlaps(ctx, set, s)...)
	}
	return list, errs
}

func (a api) planConsumer(ctx context.Context, set Set, d wantedDurable, streamComes bool) ([]Change, []error) {
	create := []Change{{Object: d.object(), Create: true}}
	if streamComes {
		return create, nil
	}
	got, found, err := a.consumer(ctx, d.stream, d.config.Durable)
	if err != nil {
		return nil, []error{err}
	}
	if found {
		return changes(d.object(), consumerFields(), d.config, got)
	}
	// Without its stream it cannot be created; the answer to the question for
	// the consumer does not tell the two apart.
	if _, found, err := a.stream(ctx, d.stream); !found {
		return nil, []error{err, missingStream(set, set.named(d.stream))}
	}
	return create, nil
}

// named returns the declared stream of that name.
func (set Set) named(name string) Stream {
	for _, s := range set.Streams {
		if s.Name == name {
			return s
		}
	}
	return Stream{Name: name}
}
