package dvtest_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// openLetters creates the streams of plattform's letters and opens them.
func openLetters(t *testing.T, conn *natsconn.Conn) *dlq.Queue {
	t.Helper()
	require.NoError(t, topology.Ensure(t.Context(), conn.JetStream(), topology.Set{
		Service: subject.Plattform,
		Streams: []topology.Stream{
			topology.DeadLetters(subject.Plattform, topology.Limits{}), topology.DeadLetterOps(subject.Plattform, topology.Limits{}),
		},
	}))
	_, err := conn.JetStream().CreateConsumer(t.Context(), nodes.ReplayStream(), nodes.ReplayConfig())
	require.NoError(t, err)
	queue, err := dlq.Open(t.Context(), conn.JetStream(), subject.Plattform, dlq.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return queue
}

// bury makes a message a dead letter, for the given cause.
func bury(t *testing.T, queue *dlq.Queue, m envelope.Message, cause string) string {
	t.Helper()
	data, err := m.Envelope.Encode()
	require.NoError(t, err)
	id, err := queue.DeadLetter(t.Context(), &envelope.Failure{
		Durable: nodes.Durable, Stream: "DV_MASKIN_EVT", Sequence: 7, StoredAt: time.Now(), Subject: m.Subject.String(),
		Header: m.Header(), Data: data, Envelope: m.Envelope, Class: envelope.ClassPoison, Err: errors.New(cause),
		Attempts: 1, FirstAt: time.Now(), LastAt: time.Now(),
	})
	require.NoError(t, err)
	return id
}

func TestDeadLetterIsReturnedWithItsData(t *testing.T) {
	t.Parallel()
	conn, m, other := dvtest.NATS(t), newMessage(t), newMessage(t)
	queue := openLetters(t, conn)
	id := bury(t, queue, m, "no room")
	bury(t, queue, other, "no room")
	letter := dvtest.RequireDeadLettered(t, conn, subject.Plattform, dlq.Filter{CorrelationID: m.Envelope.CorrelationID})
	require.Equal(t, id, letter.ID)
	e, err := envelope.Decode(letter.Data)
	require.NoError(t, err)
	require.Equal(t, m.Envelope.ID, e.ID)
}

// A service under test creates its streams when it starts.
func TestDeadLetterIsWaitedForFromBeforeItsStream(t *testing.T) {
	t.Parallel()
	conn, m := dvtest.NATS(t), newMessage(t)
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireDeadLettered(tb, conn, subject.Plattform, dlq.Filter{}, dvtest.Within(0))
	})
	requireSays(t, said, "cannot look for dead letter of plattform", "DV_PLATTFORM_DLQ", "topology.Ensure")
	found := make(chan dlq.Letter, 1)
	go func() {
		defer close(found) // also when it fails: it is not on the test's own goroutine
		found <- dvtest.RequireDeadLettered(&failing{TB: t}, conn, subject.Plattform, dlq.Filter{})
	}()
	id := bury(t, openLetters(t, conn), m, "no room")
	require.Equal(t, id, (<-found).ID)
}

func TestMissingDeadLetterListsWhatIsThere(t *testing.T) {
	t.Parallel()
	conn, m := dvtest.NATS(t), newMessage(t)
	queue := openLetters(t, conn)
	look := func(f dlq.Filter) string {
		return failure(t, func(tb testing.TB) {
			dvtest.RequireDeadLettered(tb, conn, subject.Plattform, f, dvtest.Within(shortly))
		})
	}
	requireSays(t, look(dlq.Filter{}), "there is no dead letter of plattform, nor any other", "envelope.Permanent")

	id := bury(t, queue, m, "no room in rack 12")
	said := look(dlq.Filter{Type: NodeRegistered.Name(), Class: envelope.ClassExhausted})
	requireSays(t, said,
		`there is no dead letter of plattform, type "plattform.node.registered", class "exhausted"`, "there are (1):",
		id+" open poison maskin.server.provisioned durable plattform__from_maskin: no room in rack 12",
		`but type is "maskin.server.provisioned", want "plattform.node.registered"; class is "poison", want "exhausted"`)
	require.NotContains(t, said, secret)
	requireSays(t, look(dlq.Filter{State: dlq.StateResolved}), `state "resolved"`, `but state is "open", want "resolved"`)
	requireSays(t, look(dlq.Filter{Since: time.Now().Add(time.Hour)}), "but it was stored outside of Since and Until")
}

func TestClosedLetterIsNotMeantUnlessAskedFor(t *testing.T) {
	t.Parallel()
	conn := dvtest.NATS(t)
	queue := openLetters(t, conn)
	id := bury(t, queue, newMessage(t), "no room")
	_, err := queue.Replay(t.Context(), id, dlq.Request{By: "operator:ola", Reason: "room made"})
	require.NoError(t, err)
	require.NoError(t, queue.Resolve(t.Context(), id, "handled"))
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireDeadLettered(tb, conn, subject.Plattform, dlq.Filter{}, dvtest.Within(shortly))
	})
	requireSays(t, said, id+" resolved", "it is closed; ask for it with Filter.State")
	letter := dvtest.RequireDeadLettered(t, conn, subject.Plattform, dlq.Filter{State: dlq.StateResolved})
	require.Equal(t, id, letter.ID)
}

func TestSeveralDeadLettersAreAFailureAtOnce(t *testing.T) {
	t.Parallel()
	conn := dvtest.NATS(t)
	queue := openLetters(t, conn)
	first, second := bury(t, queue, newMessage(t), "no room"), bury(t, queue, newMessage(t), "no power")
	began := time.Now()
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireDeadLettered(tb, conn, subject.Plattform, dlq.Filter{}, dvtest.Within(time.Hour))
	})
	require.Less(t, time.Since(began), eventually)
	requireSays(t, said, "2 times, want once: dead letter of plattform", first, "no room", second, "no power", "narrow it with Type")
}

func TestMisusedLetterSearchFailsAtOnce(t *testing.T) {
	t.Parallel()
	conn := dvtest.NATS(t)
	openLetters(t, conn)
	long := dvtest.Within(time.Hour)
	requireSays(t, failure(t, func(tb testing.TB) {
		dvtest.RequireDeadLettered(tb, conn, subject.Plattform, dlq.Filter{Class: "sad"}, long)
	}), "Filter.Class")
	requireSays(t, failure(t, func(tb testing.TB) {
		dvtest.RequireDeadLettered(tb, conn, subject.Service(0), dlq.Filter{}, long)
	}), "service")
	requireSays(t, failure(t, func(tb testing.TB) {
		dvtest.RequireDeadLettered(tb, nil, subject.Plattform, dlq.Filter{}, long)
	}), "the connection is nil")
}

// What is stored among the letters but is none must not hide them.
func TestStrangeMessageAmongTheLettersIsPassedBy(t *testing.T) {
	t.Parallel()
	conn := dvtest.NATS(t)
	queue := openLetters(t, conn)
	_, err := conn.JetStream().Publish(t.Context(), "dv.plattform.dlq.dv.maskin.evt.server.provisioned", []byte("strange"))
	require.NoError(t, err)
	id := bury(t, queue, newMessage(t), "no room")
	require.Equal(t, id, dvtest.RequireDeadLettered(t, conn, subject.Plattform, dlq.Filter{}).ID)
}
