package dlq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/natsserver"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(operatorURL); url != "" {
		fmt.Fprintln(os.Stderr, operate(url))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, natsserver.StillWaiting(
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))...)
}

const (
	service  = subject.Plattform
	durable  = "plattform__from_maskin"
	source   = "DV_MASKIN_EVT"
	original = "dv.maskin.evt.server.provisioned"
)

// provisioned is the payload of the event that fails in these tests.
type provisioned struct {
	ServerID string `json:"server_id"`
}

// serverProvisioned is the event that fails in these tests.
func serverProvisioned() envelope.Type[provisioned] {
	return envelope.MustEvent[provisioned](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
	})
}

// bundle is one server with the streams of one service.
type bundle struct {
	js    jetstream.JetStream
	nc    *nats.Conn
	queue *dlq.Queue
}

// quiet leaves the log of tests to failures.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// setup starts a server with both streams and opens the queue.
func setup(tb testing.TB) *bundle { return setupWith(tb, topology.Limits{}, dlq.Config{}) }

func setupWith(tb testing.TB, limits topology.Limits, cfg dlq.Config) *bundle {
	tb.Helper()
	conn := dvtest.NATS(tb)
	b := &bundle{js: conn.JetStream(), nc: conn.NATS()}
	createStreams(tb, b.js, limits)
	b.queue = b.open(tb, cfg)
	return b
}

func createStreams(tb testing.TB, js jetstream.JetStream, limits topology.Limits) {
	tb.Helper()
	require.NoError(tb, topology.Ensure(tb.Context(), js, topology.Set{
		Service: service,
		Streams: []topology.Stream{
			topology.DeadLetters(service, limits),
			topology.DeadLetterOps(service, topology.Limits{Replicas: limits.Replicas}),
		},
	}))
	declaredPull(tb, js, durable)
}

// declaredPull creates the second pull of a durable as topology declares it, or
// finds it.
func declaredPull(tb testing.TB, js jetstream.JetStream, of string) jetstream.Consumer {
	tb.Helper()
	declared := topology.Consumer{Durable: of, Stream: topology.Events(subject.Maskin, topology.Limits{})}
	c, err := js.CreateConsumer(tb.Context(), declared.ReplayStream(), declared.ReplayConfig())
	require.NoError(tb, err)
	return c
}

// open opens the queue once more, as another process would.
func (b *bundle) open(tb testing.TB, cfg dlq.Config) *dlq.Queue {
	tb.Helper()
	cfg.Logger = quiet()
	q, err := dlq.Open(tb.Context(), b.js, service, cfg)
	require.NoError(tb, err)
	return q
}

// request is what an operator fills in.
func request(who string) dlq.Request {
	return dlq.Request{By: "operator:" + who, Reason: "hostname fixed, DV-412"}
}

// message makes an event as a producer would.
func message(tb testing.TB, tenant string) envelope.Message {
	tb.Helper()
	return messageAbout(tb, tenant, "server-1")
}

func messageAbout(tb testing.TB, tenant, server string) envelope.Message {
	tb.Helper()
	ctx := envelope.WithOrigin(tb.Context(), envelope.NewOrigin("operator:kari", tenant))
	m, err := envelope.New(ctx, subject.Maskin, serverProvisioned().New(server, provisioned{ServerID: server}))
	require.NoError(tb, err)
	return m
}

// failed is the failure of a new event on its first way.
func failed(tb testing.TB, change ...func(*envelope.Failure)) *envelope.Failure {
	tb.Helper()
	m := message(tb, "tenant-1")
	data, err := m.Envelope.Encode()
	require.NoError(tb, err)
	now := time.Now()
	f := &envelope.Failure{
		Durable: durable, Stream: source, Sequence: 7, StoredAt: now.Add(-time.Minute),
		Subject: m.Subject.String(), Header: m.Header(), Data: data, Envelope: m.Envelope,
		Class: envelope.ClassExhausted, Err: errors.New("no room in rack 12"), Attempts: 20,
		FirstAt: now.Add(-time.Minute), LastAt: now,
	}
	for _, c := range change {
		c(f)
	}
	return f
}

// bury makes f a letter.
func (b *bundle) bury(tb testing.TB, f *envelope.Failure) string {
	tb.Helper()
	id, err := b.queue.DeadLetter(tb.Context(), f)
	require.NoError(tb, err)
	return id
}

// replayFailed is the failure of the replay that is stored at sequence, as the
// consumer reports it.
func (b *bundle) replayFailed(tb testing.TB, sequence uint64, text string) *envelope.Failure {
	tb.Helper()
	raw := b.stored(tb, "DV_PLATTFORM_DLQOPS", sequence)
	e, err := envelope.Decode(raw.Data)
	require.NoError(tb, err)
	h := envelope.Header(raw.Header)
	return &envelope.Failure{
		Durable: durable, Stream: "DV_PLATTFORM_DLQOPS", Sequence: sequence, StoredAt: raw.Time,
		Subject: h.Get(envelope.HeaderOriginalSubject), Header: h, Data: raw.Data, Envelope: e,
		Class: envelope.ClassPoison, Err: errors.New(text), Attempts: 1,
		FirstAt: time.Now(), LastAt: time.Now(), LetterID: h.Get(envelope.HeaderLetterID),
	}
}

// stored reads one message of a stream.
func (b *bundle) stored(tb testing.TB, stream string, sequence uint64) *jetstream.RawStreamMsg {
	tb.Helper()
	s, err := b.js.Stream(tb.Context(), stream)
	require.NoError(tb, err)
	raw, err := s.GetMsg(tb.Context(), sequence)
	require.NoError(tb, err)
	return raw
}

// count returns how many messages of a stream match filter.
func (b *bundle) count(tb testing.TB, stream, filter string) int {
	tb.Helper()
	s, err := b.js.Stream(tb.Context(), stream)
	require.NoError(tb, err)
	info, err := s.Info(tb.Context(), jetstream.WithSubjectFilter(filter))
	require.NoError(tb, err)
	n := 0
	for _, of := range info.State.Subjects {
		n += int(of)
	}
	return n
}

func (b *bundle) letters(tb testing.TB) int {
	tb.Helper()
	return b.count(tb, "DV_PLATTFORM_DLQ", ">")
}

func (b *bundle) replays(tb testing.TB) int {
	tb.Helper()
	return b.count(tb, "DV_PLATTFORM_DLQOPS", "dv.plattform.replay.>")
}

// show reads a letter that must be there.
func (b *bundle) show(tb testing.TB, id string) dlq.Letter {
	tb.Helper()
	l, err := b.queue.Show(tb.Context(), id)
	require.NoError(tb, err)
	return l
}

// list reads all letters that a filter lets through.
func (b *bundle) list(tb testing.TB, f dlq.Filter) []dlq.Letter {
	tb.Helper()
	letters, err := collect(tb.Context(), b.queue, f)
	require.NoError(tb, err)
	return letters
}

func collect(ctx context.Context, q *dlq.Queue, f dlq.Filter) ([]dlq.Letter, error) {
	var letters []dlq.Letter
	for l, err := range q.List(ctx, f) {
		if err != nil {
			return letters, err
		}
		letters = append(letters, l)
	}
	return letters, nil
}

// ids returns the letters' ids, sorted.
func ids(letters []dlq.Letter) []string {
	all := []string{}
	for _, l := range letters {
		all = append(all, l.ID)
	}
	slices.Sort(all)
	return all
}

// sorted returns its arguments, sorted.
func sorted(all ...string) []string {
	return slices.Sorted(slices.Values(all))
}

// asJSON returns v as dvmsg --json prints it.
func asJSON(tb testing.TB, v any) string {
	tb.Helper()
	text, err := json.Marshal(v)
	require.NoError(tb, err)
	return string(text)
}
