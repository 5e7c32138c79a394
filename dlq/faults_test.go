package dlq_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/topology"
)

// fault is what happens to one publish.
type fault uint8

const (
	// lostAnswer: the server stores the message, the client never learns.
	lostAnswer fault = iota + 1
	// lostMessage: the server never sees it.
	lostMessage
	// otherStream: somebody else answers.
	otherStream
)

// faulty is the real thing with faults on the way. Each publish to a subject
// that holds a given text uses up one fault.
type faulty struct {
	jetstream.JetStream
	mu     sync.Mutex
	faults map[string][]fault
	// between runs after a lost answer, before the caller goes on.
	between func()
}

func (f *faulty) next(subject string) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for part, list := range f.faults {
		if strings.Contains(subject, part) && len(list) > 0 {
			f.faults[part] = list[1:]
			return list[0]
		}
	}
	return 0
}

func (f *faulty) PublishMsg(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	what := f.next(m.Subject)
	if what == lostMessage {
		return nil, context.DeadlineExceeded
	}
	ack, err := f.JetStream.PublishMsg(ctx, m, opts...)
	switch {
	case err != nil:
		return nil, err
	case what == lostAnswer:
		if f.between != nil {
			f.between()
		}
		return nil, context.DeadlineExceeded
	case what == otherStream:
		ack.Stream = "OTHER"
	}
	return ack, nil
}

// setupFaulty opens a second queue behind faults.
func setupFaulty(t *testing.T, on string, faults ...fault) (*bundle, *faulty, *dlq.Queue) {
	t.Helper()
	b := setup(t)
	f := &faulty{JetStream: b.js, faults: map[string][]fault{on: faults}}
	q, err := dlq.Open(t.Context(), f, service, dlq.Config{Logger: quiet()})
	require.NoError(t, err)
	return b, f, q
}

// An unknown outcome of any publish is found out: whoever wrote the mark knows
// its own operation again, and repeats a replay under the same id.
func TestReplaySurvivesLostAnswersAndMessages(t *testing.T) {
	t.Parallel()
	for _, on := range []string{".dlqmark.", ".replay."} {
		for _, faults := range [][]fault{{lostAnswer}, {lostMessage}, {lostMessage, lostAnswer}, {lostAnswer, lostMessage}} {
			b, _, q := setupFaulty(t, on, faults...)
			id := b.bury(t, failed(t))
			r, err := q.Replay(t.Context(), id, request("ola"))
			require.NoError(t, err, "%s %v", on, faults)
			require.Equal(t, 1, r.Round)
			require.NotZero(t, r.Sequence)
			require.Equal(t, 1, b.replays(t))
			l := b.show(t, id)
			require.Equal(t, dlq.StateReplayed, l.State)
			require.Len(t, l.Marks, 2)
		}
	}
}

// The answer to the publish is lost, and the durable is so quick that the letter
// is resolved before the publish is repeated.
func TestReplayThatWasHandledBeforeItsAnswerCameIsNoConflict(t *testing.T) {
	t.Parallel()
	b, f, q := setupFaulty(t, ".replay.", lostAnswer)
	id := b.bury(t, failed(t))
	f.between = func() { require.NoError(t, b.queue.Resolve(t.Context(), id, "")) }
	r, err := q.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.Equal(t, dlq.StateResolved, r.State)
	require.Equal(t, 1, b.replays(t))
	require.Equal(t, dlq.StateResolved, b.show(t, id).State)
}

func TestReplayGivesUpWhenNothingIsEverAnswered(t *testing.T) {
	t.Parallel()
	lost := []fault{lostMessage, lostMessage, lostMessage, lostMessage, lostMessage, lostMessage}
	b, _, q := setupFaulty(t, ".replay.", lost...)
	id := b.bury(t, failed(t))
	_, err := q.Replay(t.Context(), id, request("ola"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, dlq.StateClaimed, b.show(t, id).State)
}

// The consumer repeats a letter whose answer it did not get; an answer of
// another stream is none.
func TestLetterIsRepeatedUntilItsOwnStreamAnswers(t *testing.T) {
	t.Parallel()
	b, _, q := setupFaulty(t, ".dlq.", lostAnswer, otherStream)
	f := failed(t)
	_, err := q.DeadLetter(t.Context(), f)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = q.DeadLetter(t.Context(), f)
	require.ErrorContains(t, err, `acknowledged by stream "OTHER"`)
	id, err := q.DeadLetter(t.Context(), f)
	require.NoError(t, err)
	require.Equal(t, 1, b.letters(t))
	require.Equal(t, f.Data, b.show(t, id).Data)
}

func TestResolveSurvivesLostAnswers(t *testing.T) {
	t.Parallel()
	b, _, q := setupFaulty(t, ".dlqmark.", lostAnswer)
	id := b.bury(t, failed(t))
	require.NoError(t, q.Resolve(t.Context(), id, ""))
	require.Len(t, b.show(t, id).Marks, 1)
}

// The declared streams are what the rest relies on; a stream made otherwise
// would keep the marks from being a history.
func TestMarksAreKeptAsHistory(t *testing.T) {
	t.Parallel()
	require.Equal(t, int64(-1), topology.DeadLetterOps(service, topology.Limits{}).Config().MaxMsgsPerSubject)
}
