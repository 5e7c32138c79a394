package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Route ties one operation in one version to its handler. [On] makes it.
type Route struct {
	contract *contract
	// handle decodes, calls the handler and encodes. It is nil without a handler.
	handle func(ctx context.Context, body []byte) ([]byte, error)
}

// On answers an operation with h. h gets a request that was read strictly; its ctx
// ends at the caller's deadline and carries the caller's origin, so that calls it
// makes and events it enqueues are correlated. h must be safe for concurrent use.
//
// The error of h is the answer: an [*Error] made with [Errorf] goes to the caller
// as it is. Any other error, also one that a call to a third service returned, is
// CodeInternal with a text that says nothing, and is logged in full; so is a panic.
// After the deadline it is CodeDeadlineExceeded. Return CodeUnavailable only if
// nothing was done: callers may repeat it.
func On[T, R any](op Operation[T, R], h func(context.Context, T) (R, error)) Route {
	route := Route{contract: op.contract}
	if h == nil || op.contract == nil {
		return route // NewServer refuses it
	}
	route.handle = func(ctx context.Context, body []byte) ([]byte, error) {
		var request T
		if err := decode(body, op.contract.request.names, &request); err != nil {
			return nil, Errorf(CodeInvalidArgument, "request %s", err)
		}
		reply, err := h(ctx, request)
		if err != nil {
			return nil, err
		}
		data, err := encode(&reply)
		if err != nil {
			return nil, fmt.Errorf("rpc: reply of %s %w", op.contract, err)
		}
		return data, nil
	}
	return route
}

// served is a route that is being served, with what discovery tells about it.
type served struct {
	Route
	// replyHeader marks a reply, and says which version its body is of. It is
	// shared by all replies and never changed.
	replyHeader nats.Header

	mu       sync.Mutex
	requests int
	errors   int
	last     string
	busy     time.Duration
}

// count notes one request; failed is nil for a reply.
func (s *served) count(took time.Duration, failed *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.busy += took
	if failed != nil {
		s.errors++
		s.last = statuses[failed.Code.known()] + ":" + oneLine(failed.Message)
	}
}

// endpoint is one subject with the versions that are served on it.
type endpoint struct {
	subject subject.Subject
	routes  map[string]*served
	order   []*served // as they were given; the first stands for requests of no version
}

// versions lists what is served, for error texts.
func (e *endpoint) versions() string {
	var all []string
	for _, r := range e.order {
		all = append(all, r.contract.version)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// newEndpoints groups the routes by subject and returns every fault.
func newEndpoints(service subject.Service, routes []Route) (endpoints []*endpoint, faults []error) {
	if len(routes) == 0 {
		faults = append(faults, errors.New("rpc: routes: none given; a server without operations answers nobody"))
	}
	by := map[subject.Subject]*endpoint{}
	for i, r := range routes {
		if r.contract == nil {
			faults = append(faults, fmt.Errorf("rpc: routes[%d]: names no operation; make it with rpc.On and rpc.MustOperation", i))
			continue
		}
		e := by[r.contract.subject]
		if reason := routeFault(service, r, e); reason != "" {
			faults = append(faults, fmt.Errorf("rpc: routes[%d] (%s): %s", i, r.contract, reason))
			continue
		}
		if e == nil {
			e = &endpoint{subject: r.contract.subject, routes: map[string]*served{}}
			by[e.subject] = e
			endpoints = append(endpoints, e)
		}
		s := &served{Route: r, replyHeader: nats.Header{envelope.HeaderEventVersion: {r.contract.version}}}
		e.routes[r.contract.version] = s
		e.order = append(e.order, s)
	}
	return endpoints, faults
}

// routeFault returns what is wrong with a route beside those of e, or "".
func routeFault(service subject.Service, r Route, e *endpoint) string {
	switch {
	case r.handle == nil:
		return "has no handler; pass a function to rpc.On"
	case service.Valid() && r.contract.subject.Service() != service:
		return "is an operation of another service than " + service.String() + "; only that service answers it"
	case e != nil && e.routes[r.contract.version] != nil:
		return "is routed twice; an operation has one handler per version"
	}
	return ""
}
