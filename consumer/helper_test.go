package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	// soon bounds what takes milliseconds.
	soon = time.Minute
	tick = 2 * time.Millisecond
)

type serverV1 struct {
	Hostname string `json:"hostname"`
}

type received = envelope.Received[serverV1]

var provisioned = envelope.MustEvent[serverV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// bundle is a broker with maskin's events, plattform's dead letters and the
// durable that plattform reads them with.
type bundle struct {
	js       jetstream.JetStream
	declared topology.Consumer
	graves   *graves
}

// setup starts a broker of the test's own. change adapts the declaration.
func setup(t *testing.T, change ...func(*topology.Consumer)) *bundle {
	t.Helper()
	return setupOn(t, dvtest.NATS(t).JetStream(), change...)
}

func setupOn(t *testing.T, js jetstream.JetStream, change ...func(*topology.Consumer)) *bundle {
	t.Helper()
	return setupWith(t, js, 1, change...)
}

func setupWith(t *testing.T, js jetstream.JetStream, replicas int, change ...func(*topology.Consumer)) *bundle {
	t.Helper()
	limits := topology.Limits{MaxBytes: 64 << 20, Replicas: replicas}
	b := &bundle{js: js, graves: &graves{}, declared: topology.Consumer{
		Durable: "plattform__from_maskin", Stream: topology.Events(subject.Maskin, limits),
		Filter: subject.EventsOf(subject.Maskin), AckWait: 2 * time.Second, MaxAckPending: 20, Start: topology.StartFirst(),
	}}
	for _, f := range change {
		f(&b.declared)
	}
	for _, s := range []topology.Stream{
		b.declared.Stream, topology.DeadLetters(subject.Plattform, limits), topology.DeadLetterOps(subject.Plattform, limits),
	} {
		_, err := js.CreateStream(t.Context(), s.Config())
		require.NoError(t, err)
	}
	b.createDurable(t)
	_, err := js.CreateConsumer(t.Context(), b.declared.ReplayStream(), b.declared.ReplayConfig())
	require.NoError(t, err)
	return b
}

func (b *bundle) createDurable(t *testing.T) {
	t.Helper()
	_, err := b.js.CreateConsumer(t.Context(), b.declared.Stream.Name, b.declared.Config())
	require.NoError(t, err)
}

// config retries quickly and logs nowhere.
func (b *bundle) config(change ...func(*consumer.Config)) consumer.Config {
	cfg := consumer.Config{
		Consumer: b.declared, RetryInitial: 5 * time.Millisecond, RetryMax: 20 * time.Millisecond,
		DrainTimeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// running is a consumer whose Run ends with the test.
type running struct {
	*consumer.Consumer
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
	err    error
}

func (b *bundle) new(t *testing.T, cfg consumer.Config, routes ...envelope.Route) *consumer.Consumer {
	t.Helper()
	c, err := consumer.New(b.js, b.graves, cfg, routes...)
	require.NoError(t, err)
	return c
}

// run starts a consumer and waits until it is ready.
func (b *bundle) run(t *testing.T, cfg consumer.Config, routes ...envelope.Route) *running {
	t.Helper()
	r := start(t, b.new(t, cfg, routes...))
	awaitReady(t, r)
	return r
}

func start(t *testing.T, c *consumer.Consumer) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Consumer: c, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- c.Run(ctx) }()
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// awaitReady waits until nothing keeps c from fetching. On a loaded machine a request
// that is answered late is a reason, too, at any time.
func awaitReady(t *testing.T, c interface{ Ready() error }) {
	t.Helper()
	require.Eventually(t, func() bool { return c.Ready() == nil }, soon, tick, "it is not ready")
}

// awaitNotReady waits until Ready gives a reason that contains text.
func awaitNotReady(t *testing.T, c interface{ Ready() error }, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		err := c.Ready()
		return err != nil && strings.Contains(err.Error(), text)
	}, soon, tick, "Ready never says %q", text)
}

// stop ends Run and returns its error.
func (r *running) stop() error {
	r.once.Do(func() {
		r.cancel()
		r.err = <-r.done
	})
	return r.err
}

// handle routes the events of the tests to h.
func handle(h func(context.Context, received) error) envelope.Route {
	return consumer.On(provisioned, h)
}

// message makes an event whose data names it.
func message(t *testing.T, name string) *nats.Msg {
	t.Helper()
	return draft(t, provisioned.New("srv-"+name, serverV1{Hostname: name}))
}

// draft makes the message that maskin would publish.
func draft(t *testing.T, d envelope.Draft) *nats.Msg {
	t.Helper()
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:ola", "tenant-1"))
	m, err := envelope.New(ctx, subject.Maskin, d)
	require.NoError(t, err)
	data, err := m.Envelope.Encode()
	require.NoError(t, err)
	return &nats.Msg{Subject: m.Subject.String(), Header: nats.Header(m.Header()), Data: data}
}

func (b *bundle) publish(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		b.send(t, message(t, name))
	}
}

func (b *bundle) send(t *testing.T, m *nats.Msg) {
	t.Helper()
	_, err := b.js.PublishMsg(t.Context(), m)
	require.NoError(t, err)
}

func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("m%03d", i)
	}
	return names
}

// info is what the server knows about the durable.
func (b *bundle) info() (*jetstream.ConsumerInfo, error) {
	c, err := b.js.Consumer(context.Background(), b.declared.Stream.Name, b.declared.Durable)
	if err != nil {
		return nil, err
	}
	return c.CachedInfo(), nil
}

// settled waits until the durable is through with everything its stream holds.
func (b *bundle) settled(t *testing.T) {
	t.Helper()
	b.through(t, b.declared.Stream.Name, b.declared.Durable)
}

// replaysSettled is settled for the replay durable; the stream must hold replays
// only.
func (b *bundle) replaysSettled(t *testing.T) {
	t.Helper()
	b.through(t, b.declared.ReplayStream(), b.declared.ReplayDurable())
}

// through compares with the stream: what the server calls pending lags behind a
// publish for a moment.
func (b *bundle) through(t *testing.T, stream, durable string) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := b.js.Stream(context.Background(), stream)
		if err != nil {
			return false
		}
		c, err := b.js.Consumer(context.Background(), stream, durable)
		if err != nil {
			return false
		}
		last := s.CachedInfo().State.LastSeq
		return last > 0 && c.CachedInfo().AckFloor.Stream >= last
	}, soon, 5*time.Millisecond)
}

// graves is a DeadLetterer that remembers what it was told.
type graves struct {
	mu       sync.Mutex
	refuse   error // of DeadLetter
	closed   error // of Resolve
	tries    int
	letters  []*envelope.Failure
	resolved []string
}

const letterID = "l0123456789abcdef0123456789abcdef01234567"

func (g *graves) DeadLetter(_ context.Context, f *envelope.Failure) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tries++
	if g.refuse != nil {
		return "", g.refuse
	}
	g.letters = append(g.letters, f)
	if f.LetterID != "" {
		return f.LetterID, nil
	}
	return letterID, nil
}

func (g *graves) Resolve(_ context.Context, id, _ string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tries++
	if g.closed != nil {
		return g.closed
	}
	g.resolved = append(g.resolved, id)
	return nil
}

func (g *graves) set(refuse, closed error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuse, g.closed = refuse, closed
}

func (g *graves) all() []*envelope.Failure {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]*envelope.Failure(nil), g.letters...)
}

func (g *graves) attempts() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.tries
}

func (g *graves) resolvedIDs() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.resolved...)
}

// await returns the first n letters.
func (g *graves) await(t *testing.T, n int) []*envelope.Failure {
	t.Helper()
	require.Eventually(t, func() bool { return len(g.all()) >= n }, soon, tick)
	return g.all()
}

// tally counts handler starts by message name, in their order.
type tally struct {
	mu    sync.Mutex
	order []string
}

func (c *tally) add(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order = append(c.order, name)
	n := 0
	for _, seen := range c.order {
		if seen == name {
			n++
		}
	}
	return n
}

func (c *tally) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.order...)
}

var errBroken = errors.New("broken")
