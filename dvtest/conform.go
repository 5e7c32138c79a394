package dvtest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/envelope"
)

// Conformance describes handlers to [Conform].
type Conformance struct {
	// Tables are statements that create the service's own tables. Default: none.
	Tables []string

	// Routes makes the handlers, as a process does at its start: the inbox and
	// everything else anew. It is called several times for one database, and the
	// handlers of two calls may run at once. Required.
	Routes func(tb testing.TB, pool *pgxpool.Pool) []envelope.Route

	// Messages are what the handlers get: drafts, in an order that the handlers
	// accept without a retry. Take a few that concern each other, of different
	// types and keys; none may be refused for good. Required.
	Messages []envelope.Draft

	// State reads what the effects add up to: the service's own rows, and what
	// else a handler changes. Leave out what differs from run to run by nature,
	// such as times and the ids of what was enqueued. Required.
	State func(tb testing.TB, pool *pgxpool.Pool) any

	// KeyOrder says that the handlers run in ordered mode and rely on it: "out of
	// order" then changes the order of keys, and not that of messages of one
	// key. Default false: any order.
	KeyOrder bool
}

// Conform shows that handlers bear what delivery can do to them. It delivers the
// messages once each, in order, and then in each of these ways, on databases of
// their own, and fails where the effects do not add up to the same state:
//
//	delivered twice       an ack was lost
//	delivered at once     two replicas have the same message
//	out of order          a retry or another replica was slower
//	crash before commit   the database connection dies in the commit
//	crash after commit    the process dies before the ack, and another one goes on
//	late                  everything comes again, long after
//	replayed              given up, then replayed by an operator, twice
//
// A verdict that asks for a retry gets one after the other messages had their
// turn; a permanent one, and retries that bring nothing forward, fail the test.
// Handlers of consumer.On, which have no transaction of the inbox, run again
// after a "crash before commit", since that is what a crash does to them.
//
// The subtests are parallel. It takes one database for each and no broker.
func Conform(t *testing.T, c Conformance) {
	t.Helper()
	messages, want := c.baseline(t)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.check(t, &c, messages, want)
		})
	}
}

// baseline delivers each message once and returns the state that adds up to.
func (c *Conformance) baseline(tb testing.TB) (messages []envelope.Message, want any) {
	tb.Helper()
	if c.Routes == nil || c.State == nil || len(c.Messages) == 0 {
		tb.Fatalf("dvtest: Conformance: Routes, Messages and State are required")
	}
	first := newTrial(tb, c, c.messages(tb))
	before := c.State(tb, first.pool)
	first.settle(first.messages...)
	want = c.State(tb, first.pool)
	if reflect.DeepEqual(before, want) {
		tb.Fatalf("dvtest: Conformance: the messages change nothing that State reads, so nothing could be shown: %+v", want)
	}
	return first.messages, want
}

// messages completes the drafts, so that every scenario delivers the same ids.
func (c *Conformance) messages(tb testing.TB) []envelope.Message {
	tb.Helper()
	all := make([]envelope.Message, len(c.Messages))
	for i, draft := range c.Messages {
		how := delivering{origin: envelope.NewOrigin("system:dvtest", "tenant-dvtest"), source: owner(draft.TypeName())}
		all[i] = how.message(tb, envelope.Route{Type: draft.TypeName()}, draft)
	}
	return all
}

// scenario is one way in which messages are delivered.
type scenario struct {
	name string
	run  func(*trial)
}

// scenarios lists what Conform does.
func scenarios() []scenario {
	return []scenario{
		{"delivered twice", (*trial).twice},
		{"delivered at once", (*trial).atOnce},
		{"out of order", (*trial).outOfOrder},
		{"crash before commit", (*trial).crashBeforeCommit},
		{"crash after commit", (*trial).crashAfterCommit},
		{"late", (*trial).late},
		{"replayed", (*trial).replayed},
	}
}

// check runs a scenario on a database of its own and compares the state.
func (s scenario) check(tb testing.TB, c *Conformance, messages []envelope.Message, want any) {
	tb.Helper()
	t := newTrial(tb, c, messages)
	s.run(t)
	if got := c.State(tb, t.pool); !reflect.DeepEqual(got, want) {
		tb.Fatalf("dvtest: %s: the state differs from that after each message once, in order\nwant: %+v\ngot:  %+v", s.name, want, got)
	}
}

// trial is one database with handlers.
type trial struct {
	testing.TB
	c        *Conformance
	pool     *pgxpool.Pool
	messages []envelope.Message
	routes   []envelope.Route
}

func newTrial(tb testing.TB, c *Conformance, messages []envelope.Message) *trial {
	tb.Helper()
	t := &trial{TB: tb, c: c, pool: Postgres(tb), messages: messages}
	for _, sql := range c.Tables {
		if _, err := t.pool.Exec(tb.Context(), sql); err != nil {
			tb.Fatalf("dvtest: Conformance.Tables: %v", err)
		}
	}
	t.restart()
	return t
}

// restart makes the handlers anew, as the next process does.
func (t *trial) restart() { t.routes = t.c.Routes(t.TB, t.pool) }

// route returns the handler of a message: that of its own version, else the one
// with the lowest version that carries it forward, as a consumer does.
func (t *trial) route(m envelope.Message) envelope.Route {
	t.Helper()
	version := m.Envelope.SchemaVersion()
	best := -1
	for i, r := range t.routes {
		switch {
		case r.Type != m.Envelope.Type:
		case r.Version == version:
			return r
		case slices.Contains(r.Older, version) && (best < 0 || r.Version < t.routes[best].Version):
			best = i
		}
	}
	if best < 0 {
		best = slices.IndexFunc(t.routes, func(r envelope.Route) bool { return r.Type == envelope.AnyType })
	}
	if best < 0 {
		t.Fatalf("dvtest: Conformance: no route handles %s v%d", m.Envelope.Type, version)
	}
	return t.routes[best]
}

// delivery is the delivery of a message, of a replay if letter is given.
func (t *trial) delivery(m envelope.Message, letter string) (envelope.Route, *envelope.Delivery) {
	t.Helper()
	route := t.route(m)
	_, d := delivery(t.TB, route, m, nil)
	d.LetterID = letter
	return route, d
}

// deliver hands a message to its handler and returns the verdict.
func (t *trial) deliver(m envelope.Message) error {
	t.Helper()
	route, d := t.delivery(m, "")
	return route.Handle(d.Context(t.Context()), d)
}

// done tells whether a verdict ends a message.
func done(err error) bool { return err == nil || errors.Is(err, envelope.ErrAlreadyProcessed) }

// settle delivers messages until each is done: those that ask for a retry after
// the others.
func (t *trial) settle(messages ...envelope.Message) {
	t.Helper()
	for len(messages) > 0 {
		var again []envelope.Message
		var last error
		for _, m := range messages {
			err := t.deliver(m)
			if envelope.IsPermanent(err) && !done(err) {
				t.Fatalf("dvtest: %s would become a dead letter: %v", name(m), err)
			}
			if !done(err) {
				again, last = append(again, m), err
			}
		}
		if len(again) == len(messages) {
			t.Fatalf("dvtest: %d message(s) are refused also after all others were handled, the last, %s, with: %v",
				len(again), name(again[len(again)-1]), last)
		}
		messages = again
	}
}

// attempt calls a handler on a goroutine of its own and reports its verdict.
func attempt(ctx context.Context, route envelope.Route, d *envelope.Delivery, verdict chan<- error) {
	verdict <- route.Handle(d.Context(ctx), d)
}
