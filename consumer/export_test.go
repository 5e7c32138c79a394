package consumer

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// Judge is policy.judge in words that a test table can hold.
func Judge(maxAttempts int, err error, attempt int, interrupted bool) (action string, class string, delay time.Duration) {
	cfg := Config{MaxAttempts: maxAttempts, RetryInitial: time.Second, RetryMax: 30 * time.Second}.withDefaults()
	v := policy{maxAttempts: cfg.MaxAttempts, maxDelay: cfg.maxDelay(), retry: cfg.retry()}.judge(err, attempt, interrupted)
	names := map[verb]string{ack: "ack", retry: "retry", bury: "bury", release: "release", reject: "reject"}
	if v.duplicate {
		return "ack duplicate", "", 0
	}
	return names[v.action], string(v.class), v.delay
}

// verb is action, whose name a result of Judge takes.
type verb = action

// Effective returns cfg as New uses it.
func Effective(cfg Config) Config { return cfg.withDefaults() }

// Heartbeat is the keep-alive of a message.
type Heartbeat = heartbeat

// StartHeartbeat is start, with a rhythm of its own.
func StartHeartbeat(every time.Duration, send func()) *Heartbeat {
	h := new(Heartbeat)
	h.start(newHeartbeats(every), send)
	return h
}

// Follow is follow.
func (h *heartbeat) Follow(handler context.Context) { h.follow(handler) }

// Unfollow is unfollow.
func (h *heartbeat) Unfollow() { h.unfollow() }

// Stop is stop.
func (h *heartbeat) Stop() { h.stop() }

// Deadline is one of Deadlines.
type Deadline struct{ deadline[int] }

// Deadlines is a list of deadlines with a number each.
type Deadlines struct {
	*deadlines[int]
	numbers chan int
}

// NewDeadlines has them pass after that time.
func NewDeadlines(after time.Duration) Deadlines {
	numbers := make(chan int, 100)
	return Deadlines{&deadlines[int]{after: after, passed: func(n int) { numbers <- n }}, numbers}
}

// Set, Clear and Rest are set, clear and rest.
func (l Deadlines) Set(d *Deadline, n int) {
	d.of = n
	l.set(&d.deadline, time.Now())
}

// Clear is documented with Set.
func (l Deadlines) Clear(d *Deadline) bool { return l.clear(&d.deadline) }

// Rest is documented with Set.
func (l Deadlines) Rest() { l.rest() }

// Passed returns the numbers of those that have passed, and forgets nothing.
func (l Deadlines) Passed() []int {
	all := make([]int, 0, len(l.numbers))
	for range len(l.numbers) {
		n := <-l.numbers
		all = append(all, n)
		l.numbers <- n
	}
	return all
}

// HandlerContext is newHandlerContext, and its end.
func HandlerContext(parent context.Context, deadline time.Time) (context.Context, func()) {
	c := newHandlerContext(parent, deadline)
	return c, c.end
}

// Gate lets a test drive the accounts of both pulls.
type Gate struct{ *gate }

// NewGate is newGate.
func NewGate(size int) Gate { return Gate{newGate(size, size)} }

// Reserve, Arrive, Adopt and Forgo act for the main pull, or for the replay
// pull.
func (g Gate) Reserve(replay bool) int     { return g.reserve(g.lane(replay)) }
func (g Gate) Arrive(replay bool) bool     { return g.arrive(g.lane(replay)) }
func (g Gate) Adopt() bool                 { return g.adopt(nil) }
func (g Gate) Forgo(replay bool, n int)    { g.forgo(g.lane(replay), n) }
func (g Gate) Settle()                     { g.settle() }
func (g Gate) Pause()                      { g.pause() }
func (g Gate) Resume()                     { g.resume() }
func (g Gate) Close()                      { g.close() }
func (g Gate) Idle() <-chan struct{}       { return g.idle }
func (g Gate) Wake(r bool) <-chan struct{} { return g.lane(r).wake }

func (g Gate) lane(replay bool) *lane {
	if replay {
		return g.lanes[1]
	}
	return g.lanes[0]
}

// Breaker is a breaker with its gate.
type Breaker struct {
	*breaker
	Gate
}

// NewBreaker opens after so many failures, over a gate of the given size.
func NewBreaker(after, size int) Breaker {
	g := NewGate(size)
	return Breaker{&breaker{after: after, gate: g.gate, cut: func() {}, log: slog.New(slog.DiscardHandler), failing: map[string]bool{}}, g}
}

// Failed and Succeeded are failed and succeeded.
func (b Breaker) Failed(message string) { b.failed(message, errGoexit) }
func (b Breaker) Succeeded()            { b.succeeded() }

// Status is status, for a message with the given status headers.
func Status(code, description string) (over bool, err error) {
	return status(&nats.Msg{Header: nats.Header{"Status": {code}, "Description": {description}}})
}

// Protect is protect.
func Protect(call func() error) error { return protect(call) }

// Source asks the server for messages.
type Source struct{ *natsSource }

// OpenSource opens the main durable's source; strays are dropped.
func OpenSource(c *Consumer) (Source, error) {
	s, err := openSource(c.js, c.durables()[0], func(*nats.Msg) {}, func() {})
	return Source{s}, err
}

// Probe asks for one message as after a failure.
func (s Source) Probe(ctx context.Context) error {
	return s.pull(ctx, 1, true, func(*nats.Msg) {}, func() {})
}

// Close is close.
func (s Source) Close(ctx context.Context) { s.close(ctx) }

// Reasons for which a request is given up.
var (
	ErrSilent       = errSilent
	ErrDisconnected = errDisconnected
)

// Pull is the loop of one durable.
type Pull struct{ *pull }

// Answer is a source that answers requests for n messages.
type Answer func(ctx context.Context, n int) error

func (a Answer) pull(ctx context.Context, n int, _ bool, _ func(*nats.Msg), _ func()) error {
	return a(ctx, n)
}

func (Answer) close(context.Context) {}

// NewPull returns the main pull over a source of the test, with a connection and
// a durable that are always there.
func NewPull(c *Consumer, a Answer) Pull {
	p := c.newPull(c.durables()[0])
	p.source = a
	p.inspect = func(context.Context) error { return nil }
	p.connected = func() bool { return true }
	return Pull{p}
}

// Run is run.
func (p Pull) Run(ctx context.Context) { p.run(ctx) }

// Ready is ready.
func (p Pull) Ready() error { return p.ready() }

// Disconnected and Reconnected are what the connection reports.
func (p Pull) Disconnected() { p.disconnected() }
func (p Pull) Reconnected()  { p.reconnected() }

// Stumble and Answered are a delivery that shows another to be missing, and one
// that comes behind it.
func (p Pull) Stumble()  { p.stumble(errMissed) }
func (p Pull) Answered() { p.answered() }

// SetGrace shortens what a cancelled handler gets to return.
func (c *Consumer) SetGrace(d time.Duration) {
	c.grace, c.overdue.limits.after = d, c.cfg.HandlerTimeout+d
}

// SetSurvey makes a consumer look for parked messages more often.
func (c *Consumer) SetSurvey(every time.Duration) {
	c.lot.mu.Lock()
	c.lot.every = every
	c.lot.mu.Unlock()
	c.lot.expect(0)
}

// Open decodes a message as a worker does, up to the handler, and returns the
// class of the dead letter that it would become, "" for none, or "rejected".
func (c *Consumer) Open(subject string, header nats.Header, data []byte, replay bool) string {
	m := &message{raw: &nats.Msg{Subject: subject, Header: header, Data: data}, replay: replay, delivered: 1}
	j, v := c.open(m)
	switch {
	case v.action == reject:
		return "rejected"
	case v.action == bury:
		return string(c.failure(j, v).Class)
	}
	return ""
}

// Read returns what a message knows from its reply subject, in the client library's
// words.
func Read(reply string) (*nats.MsgMetadata, error) {
	m, err := newMessage(nil, &nats.Msg{Reply: reply}, false)
	if err != nil {
		return nil, err
	}
	return &nats.MsgMetadata{
		Stream: m.stream, NumDelivered: uint64(m.delivered), Timestamp: m.storedAt,
		Sequence: nats.SequencePair{Stream: m.sequence, Consumer: m.consumerSeq},
	}, nil
}

// Marks returns how many keys the active instance takes for parked.
func (c *Consumer) Marks() int {
	l := c.order.current.Load().lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.parked)
}

// SetGlance shortens the time between looks at the letters that hold keys.
func (c *Consumer) SetGlance(d time.Duration) { c.order.glance = d }

// Track is what one term knows of the deliveries it got.
type Track struct {
	*track
	Ahead int // as it was told last
}

// NewTrack is newTrack.
func NewTrack(high uint64) *Track {
	t := &Track{}
	tr := newTrack(high, func(n int) { t.Ahead = n })
	t.track = &tr
	return t
}

// Arrive is arrive for the given delivery, in words.
func (t *Track) Arrive(from string, number, sequence uint64, delivered int) string {
	f, again := t.arrive(&message{consumerSeq: number, sequence: sequence, delivered: delivered}, from)
	if again {
		return "again"
	}
	return map[fate]string{taken: "taken", ignored: "ignored", missed: "missed", twin: "twin", known: "known"}[f]
}

// Settle, Shut and Reset are settle, shut and reset. ResetAt is a reset to a floor.
func (t *Track) Settle(sequence uint64)                      { t.settle(sequence) }
func (t *Track) Shut() uint64                                { return t.shut() }
func (t *Track) Reset(from string, high uint64, others bool) { t.reset(from, t.floor, high, others) }
func (t *Track) ResetAt(from string, floor uint64)           { t.reset(from, floor, floor, false) }

// Company decides which handlers run at the same time.
type Company struct{ *company }

// ErrCrowded is why one does not wait any longer to run alone.
var ErrCrowded = errCrowded

// NewCompany returns one with the given limits of a wait to run alone.
func NewCompany(patience, most time.Duration) Company {
	return Company{&company{patience: patience, most: most}}
}

// Clear is clear.
func (c Company) Clear(ctx context.Context, closing chan struct{}) (end func(), err error) {
	p, err := c.clear(ctx, closing)
	if err != nil {
		return nil, err
	}
	return p.end, nil
}

// Join is join.
func (c Company) Join(t *testing.T) (end func()) {
	t.Helper()
	p, err := c.join(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.end
}

// GoClear and GoJoin wait on another goroutine.
func (c Company) GoClear(t *testing.T) <-chan func() {
	ended := make(chan func(), 1)
	go func() {
		if end, err := c.Clear(t.Context(), nil); err == nil {
			ended <- end
		}
	}()
	return ended
}

// GoJoin is documented with GoClear.
func (c Company) GoJoin(t *testing.T) <-chan func() {
	ended := make(chan func(), 1)
	go func() { ended <- c.Join(t) }()
	return ended
}

// Crew runs functions on goroutines that it keeps.
type Crew struct{ *crew }

// NewCrew is newCrew.
func NewCrew(keep int) Crew { return Crew{newCrew(keep)} }

// Run and Dismiss are run and dismiss.
func (c Crew) Run(task func()) { c.run(task) }
func (c Crew) Dismiss()        { c.dismiss() }

// Acks is acks with numbers for messages.
type Acks struct{ acks *acks }

// NewAcks is newAcks with another delay.
func NewAcks(inFlight int, delay time.Duration, send func(n int)) Acks {
	a := newAcks(inFlight, func(m *message) { send(int(m.sequence)) })
	a.delay = delay
	return Acks{a}
}

// Add is add; took is how long the handler took.
func (a Acks) Add(n int, took time.Duration) {
	a.acks.add(&message{sequence: uint64(n)}, time.Now().Add(-took))
}

// Flush is flush.
func (a Acks) Flush() { a.acks.flush() }

// SetAckDelay has acks wait longer for others.
func (c *Consumer) SetAckDelay(d time.Duration) { c.acks.delay = d }

// LookEvery has the consumer look for unread messages so often.
func (c *Consumer) LookEvery(every time.Duration) { c.lookout.least, c.lookout.rash = every, true }

// SeenUnread is the sequence of the oldest unread message of the last look, 0 for
// none, and -1 before there was a look.
func (c *Consumer) SeenUnread() int64 {
	if seen := c.lookout.fresh(); seen != nil && seen.known {
		return int64(seen.oldest)
	}
	return -1
}
