package consumer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
)

// On routes messages of type t to h: a handler without a database of its own,
// or one whose effect is idempotent by itself. A handler with a database uses
// inbox.On, which applies the effect once.
//
// Data that does not fit T is a dead letter of class decode at once; h never
// sees it. Older versions that t carries forward come to h as T. The route holds no state; h must be safe for concurrent use.
func On[T any](t envelope.Type[T], h func(context.Context, envelope.Received[T]) error) envelope.Route {
	route := envelope.Route{Type: t.Name(), Version: t.Version(), Older: t.Older()}
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

// OnAny routes to h every message whose type no other route names: for logs, audits
// and bridges, which do not look into the data. A type that has a route stays its own:
// another version of it is a dead letter, and does not vanish here. Otherwise OnAny is
// like [On].
func OnAny(h func(context.Context, *envelope.Delivery) error) envelope.Route {
	return envelope.Route{Type: envelope.AnyType, Handle: h}
}

// routeKey is what a message is routed by.
type routeKey struct {
	name    string
	version int
}

// anyKey is that of the route for the rest.
func anyKey() routeKey { return routeKey{name: envelope.AnyType} }

func (k routeKey) String() string { return fmt.Sprintf("%s v%d", k.name, k.version) }

// table finds the route of a message. It is immutable.
type table struct {
	routes   map[routeKey]*envelope.Route
	versions map[string][]int // of each type, ascending
	known    string           // for error texts
}

// newTable checks the routes and returns every fault.
func newTable(routes []envelope.Route) (table, []error) {
	t := table{routes: make(map[routeKey]*envelope.Route, len(routes)), versions: map[string][]int{}}
	var faults []error
	if len(routes) == 0 {
		faults = append(faults, errors.New("consumer: routes: none given; every message would become a dead letter"))
	}
	for i, r := range routes {
		key := routeKey{r.Type, r.Version}
		if reason := t.check(r, key); reason != "" {
			faults = append(faults, fmt.Errorf("consumer: routes[%d] (%.100s): %s", i, key, reason))
			continue
		}
		t.routes[key] = &r
	}
	t.addOlder()
	t.describe()
	return t, faults
}

// addOlder adds the versions that routes carry forward and that have no route of
// their own. Of several routes the one with the lowest version takes them: what
// was made for the older version is nearest to it.
func (t table) addOlder() {
	own := slices.SortedFunc(maps.Keys(t.routes), func(a, b routeKey) int { return cmp.Compare(a.version, b.version) })
	for _, key := range own {
		r := t.routes[key]
		for _, v := range r.Older {
			if older := (routeKey{r.Type, v}); t.routes[older] == nil {
				t.routes[older] = r
			}
		}
	}
}

// describe fills what error texts need.
func (t *table) describe() {
	names := make([]string, 0, len(t.routes))
	for key := range t.routes {
		names = append(names, key.String())
		t.versions[key.name] = append(t.versions[key.name], key.version)
	}
	for _, versions := range t.versions {
		slices.Sort(versions)
	}
	slices.Sort(names)
	t.known = strings.Join(names, ", ")
}

// check returns what is wrong with a route, or "".
func (t table) check(r envelope.Route, key routeKey) string {
	switch {
	case key != anyKey() && (r.Type == "" || r.Version < 1):
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
	if r := t.routes[anyKey()]; r != nil && t.versions[key.name] == nil {
		return r, nil
	}
	fault := &envelope.DecodeError{Fault: envelope.FaultType, Type: key.name, Version: key.version, Reason: fmt.Sprintf(
		"no handler; this consumer handles %s: add one, or narrow the durable's filter, then replay or discard", clip(t.known, maxErrorText))}
	if versions := t.versions[key.name]; versions != nil {
		remedy := "deploy a release that handles the newer one"
		if key.version < versions[len(versions)-1] {
			remedy = "carry the older one forward with envelope.Upcast"
		}
		fault.Fault = envelope.FaultVersion
		fault.Reason = fmt.Sprintf("no handler of this version; this consumer handles %s: %s, then replay", numbered(versions), remedy)
	}
	return nil, fmt.Errorf("consumer: route message: %w", fault)
}

// kin returns the route of the newest version of the message's type, nil if no version
// has one.
func (t table) kin(e *envelope.Envelope) *envelope.Route {
	versions := t.versions[e.Type]
	if len(versions) == 0 {
		return nil
	}
	return t.routes[routeKey{e.Type, versions[len(versions)-1]}]
}

// numbered lists versions: "v1, v2".
func numbered(versions []int) string {
	texts := make([]string, len(versions))
	for i, v := range versions {
		texts[i] = fmt.Sprintf("v%d", v)
	}
	return clip(strings.Join(texts, ", "), maxErrorText)
}
