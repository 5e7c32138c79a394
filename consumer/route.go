package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
)

// On routes messages of type t to h: a handler without a database of its own,
// or one whose effect is idempotent by itself. A handler with a database uses
// inbox.On, which applies the effect once.
//
// Data that does not fit T is a dead letter of class decode at once; h never
// sees it. The route holds no state; h must be safe for concurrent use.
func On[T any](t envelope.Type[T], h func(context.Context, envelope.Received[T]) error) envelope.Route {
	route := envelope.Route{Type: t.Name(), Version: t.Version()}
	if h == nil {
		return route // New refuses it, with its name
	}
	route.Handle = func(ctx context.Context, d *envelope.Delivery) error {
		data, err := t.Decode(d.Envelope)
		if err != nil {
			return envelope.Permanent(err)
		}
		return h(ctx, envelope.Received[T]{Delivery: d, Data: data})
	}
	return route
}

// routeKey is what a message is routed by.
type routeKey struct {
	name    string
	version int
}

func (k routeKey) String() string { return fmt.Sprintf("%s v%d", k.name, k.version) }

// table finds the route of a message. It is immutable.
type table struct {
	routes map[routeKey]*envelope.Route
	known  string // for error texts
}

// newTable checks the routes and returns every fault.
func newTable(routes []envelope.Route) (table, []error) {
	t := table{routes: make(map[routeKey]*envelope.Route, len(routes))}
	var faults []error
	if len(routes) == 0 {
		faults = append(faults, errors.New("consumer: routes: none given; every message would become a dead letter"))
	}
	names := make([]string, 0, len(routes))
	for i, r := range routes {
		key := routeKey{r.Type, r.Version}
		if reason := t.check(r, key); reason != "" {
			faults = append(faults, fmt.Errorf("consumer: routes[%d] (%.100s): %s", i, key, reason))
			continue
		}
		t.routes[key] = &r
		names = append(names, key.String())
	}
	slices.Sort(names)
	t.known = strings.Join(names, ", ")
	return t, faults
}

// check returns what is wrong with a route, or "".
func (t table) check(r envelope.Route, key routeKey) string {
	switch {
	case r.Type == "" || r.Version < 1:
		return "names no type and version; make it with consumer.On or inbox.On"
	case r.Handle == nil:
		return "has no handler; pass a function to consumer.On or inbox.On"
	case t.routes[key] != nil:
		return "is routed twice; a message has one handler per consumer"
	}
	return ""
}

// find returns the route of a message, or why there is none. An unknown message
// becomes a dead letter, not a silent skip: the declared filter said that this
// consumer wants it, so somebody forgot something.
func (t table) find(e *envelope.Envelope) (*envelope.Route, error) {
	key := routeKey{e.Type, e.SchemaVersion()}
	if r := t.routes[key]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("consumer: route message: no handler for %.200s; this consumer handles %s", key, clip(t.known, maxErrorText))
}
