package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
)

// shelf is a stream that tests fill by hand.
type shelf struct {
	js     jetstream.JetStream
	stream jetstream.Stream
}

func newShelf(t *testing.T, js jetstream.JetStream, replicas int) shelf {
	t.Helper()
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "SHELF", Subjects: []string{"shelf.>"}, Replicas: replicas, Duplicates: 100 * time.Millisecond})
	require.NoError(t, err)
	return shelf{js, s}
}

// put stores n messages with the given header and new ids, and returns these.
func (s shelf) put(t *testing.T, n int, header nats.Header) (ids []string) {
	t.Helper()
	for range n {
		id := uuid.Must(uuid.NewV7()).String()
		h := nats.Header{envelope.HeaderMsgID: {id}}
		for name, values := range header {
			h[name] = values
		}
		_, err := s.js.PublishMsg(t.Context(), &nats.Msg{Subject: "shelf.a", Header: h, Data: []byte("body")})
		require.NoError(t, err)
		ids = append(ids, id)
	}
	return ids
}

func ours() nats.Header { return nats.Header{envelope.HeaderSource: {"maskin"}} }

// consumers is how many readers the stream still has.
func (s shelf) consumers(t *testing.T) int {
	t.Helper()
	info, err := s.stream.Info(t.Context())
	require.NoError(t, err)
	return info.State.Consumers
}

func TestTailHoldsWhatWePublishedBehindAPlaceAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newShelf(t, dvtest.NATS(t).JetStream(), 1)
	s.put(t, 3, ours()) // before the place
	first := s.put(t, 1200, ours())
	s.put(t, 700, nats.Header{envelope.HeaderSource: {"nett"}})
	s.put(t, 1, nats.Header{})
	s.put(t, 1, nats.Header{envelope.HeaderSource: {"maskin"}, envelope.HeaderSite: {"dc2"}})
	s.put(t, 1, nats.Header{envelope.HeaderSource: {"maskin"}, envelope.HeaderMsgID: {"l0123/r1"}})
	s.put(t, 1, nats.Header{envelope.HeaderSource: {"maskin"}, envelope.HeaderMsgID: {uuid.NewString(), first[1]}})
	second := s.put(t, 1, ours())
	require.Eventually(t, func() bool { // the window has forgotten the first
		_, err := s.js.PublishMsg(t.Context(), &nats.Msg{Subject: "shelf.a", Header: nats.Header{
			envelope.HeaderMsgID: {first[7]}, envelope.HeaderSource: {"maskin"},
		}})
		require.NoError(t, err)
		info, err := s.stream.Info(t.Context())
		require.NoError(t, err)
		return info.State.LastSeq == 3+1200+700+4+2
	}, 20*time.Second, time.Millisecond)

	ids, through, cut, err := outbox.Tail(t.Context(), s.js, "SHELF", 3, time.Time{}, "maskin", "", 10_000)
	require.NoError(t, err)
	require.False(t, cut)
	require.Len(t, ids, 1201)
	for i, id := range first {
		require.EqualValues(t, 3+1+i, ids[id], "of an id that is there twice, the first place counts")
	}
	require.EqualValues(t, 3+1200+700+5, ids[second[0]])
	require.EqualValues(t, 3+1200+700+6, through)
	require.Zero(t, s.consumers(t), "the reader was not removed")

	ids, _, _, err = outbox.Tail(t.Context(), s.js, "SHELF", through, time.Time{}, "maskin", "", 10_000)
	require.NoError(t, err)
	require.Empty(t, ids)
	ids, _, _, err = outbox.Tail(t.Context(), s.js, "SHELF", through-1, time.Time{}, "maskin", "dc2", 10_000)
	require.NoError(t, err)
	require.Empty(t, ids, "another site's")
}

func TestTailIsBounded(t *testing.T) {
	t.Parallel()
	s := newShelf(t, dvtest.NATS(t).JetStream(), 1)
	put := s.put(t, 30, ours())
	ids, _, cut, err := outbox.Tail(t.Context(), s.js, "SHELF", 0, time.Time{}, "maskin", "", 20)
	require.NoError(t, err)
	require.True(t, cut)
	require.Len(t, ids, 20)
	require.EqualValues(t, 20, ids[put[19]], "the oldest are kept: they are sent again first")
	require.Zero(t, s.consumers(t))
}

// Nothing was ever acknowledged: what is older than the oldest row is not read.
func TestTailCanBeginAtAMoment(t *testing.T) {
	t.Parallel()
	s := newShelf(t, dvtest.NATS(t).JetStream(), 1)
	s.put(t, 5, ours())
	last, err := s.stream.GetMsg(t.Context(), 5)
	require.NoError(t, err)
	put := s.put(t, 2, ours())
	ids, _, _, err := outbox.Tail(t.Context(), s.js, "SHELF", 0, last.Time.Add(time.Nanosecond), "maskin", "", 100)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{put[0]: 6, put[1]: 7}, ids)
}

// The stream's end may have been deleted by hand, or all of it purged: the end
// that the leader tells is then never reached.
func TestTailOfAStreamWhoseEndWasDeletedEnds(t *testing.T) {
	t.Parallel()
	s := newShelf(t, dvtest.NATS(t).JetStream(), 1)
	put := s.put(t, 10, ours())
	require.NoError(t, s.stream.DeleteMsg(t.Context(), 10))
	require.NoError(t, s.stream.DeleteMsg(t.Context(), 5))
	ids, _, _, err := outbox.Tail(t.Context(), s.js, "SHELF", 3, time.Time{}, "maskin", "", 100)
	require.NoError(t, err)
	require.Len(t, ids, 5)
	require.EqualValues(t, 9, ids[put[8]])
	require.NoError(t, s.stream.Purge(t.Context()))
	ids, _, _, err = outbox.Tail(t.Context(), s.js, "SHELF", 3, time.Time{}, "maskin", "", 100)
	require.NoError(t, err)
	require.Empty(t, ids)
}

// The reader lives on any of three servers, and the end is what the leader says.
func TestTailOfAReplicatedStreamIsComplete(t *testing.T) {
	t.Parallel()
	cluster := dvtest.Cluster(t)
	s := newShelf(t, cluster.Connect(t).JetStream(), 3)
	for range 3 {
		s.put(t, 30, ours())
		ids, through, _, err := outbox.Tail(t.Context(), s.js, "SHELF", 0, time.Time{}, "maskin", "", 10_000)
		require.NoError(t, err)
		require.EqualValues(t, through, len(ids))
		info, err := s.stream.Info(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, info.State.LastSeq, through)
	}
}

func TestTailThatCannotBeReadSaysSo(t *testing.T) {
	t.Parallel()
	s := newShelf(t, dvtest.NATS(t).JetStream(), 1)
	s.put(t, 1, ours())
	_, _, _, err := outbox.Tail(t.Context(), s.js, "MISSING", 0, time.Time{}, "maskin", "", 100)
	require.ErrorContains(t, err, "10059")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, _, err = outbox.Tail(ctx, s.js, "SHELF", 0, time.Time{}, "maskin", "", 100)
	require.ErrorIs(t, err, context.Canceled)
}

func TestIDsAreStaleBeforeTheWindowForgetsThem(t *testing.T) {
	t.Parallel()
	now := time.Now()
	require.False(t, outbox.Stale(2*time.Minute, now.Add(-80*time.Second)))
	require.True(t, outbox.Stale(2*time.Minute, now.Add(-91*time.Second)))
	require.True(t, outbox.Stale(0, now), "without a window nothing is remembered")
}
