package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

func TestListOfNothingIsEmpty(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Empty(t, b.list(t, dlq.Filter{}))
	// A queue that was empty is not remembered as empty.
	id := b.bury(t, failed(t))
	require.Equal(t, []string{id}, ids(b.list(t, dlq.Filter{})))
}

func TestListFiltersByEveryField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	plain := failed(t)
	first := b.bury(t, plain)
	between := time.Now()
	other := failed(t, func(f *envelope.Failure) {
		m := messageAbout(t, "tenant-2", "server-2")
		data, err := m.Envelope.Encode()
		require.NoError(t, err)
		f.Envelope, f.Header, f.Data = m.Envelope, m.Header(), data
		f.Durable, f.Class, f.Err = "plattform__audit", envelope.ClassPoison, errors.New("bad")
	})
	second := b.bury(t, other)
	foreign := b.bury(t, failed(t, func(f *envelope.Failure) {
		f.Envelope, f.Header, f.Class = nil, envelope.Header{envelope.HeaderType: {"other.type"}}, envelope.ClassDecode
	}))

	for name, c := range map[string]struct {
		filter dlq.Filter
		want   []string
	}{
		"zero":        {dlq.Filter{}, sorted(first, second, foreign)},
		"correlation": {dlq.Filter{CorrelationID: plain.Envelope.CorrelationID}, sorted(first)},
		"tenant":      {dlq.Filter{TenantID: "tenant-2"}, sorted(second)},
		"type":        {dlq.Filter{Type: "other.type"}, sorted(foreign)},
		"durable":     {dlq.Filter{Durable: durable}, sorted(first, foreign)},
		"class":       {dlq.Filter{Class: envelope.ClassPoison}, sorted(second)},
		"fingerprint": {dlq.Filter{Fingerprint: b.show(t, second).Fingerprint}, sorted(second)},
		"since":       {dlq.Filter{Since: between}, sorted(second, foreign)},
		"until":       {dlq.Filter{Until: between}, sorted(first)},
		"exact since": {dlq.Filter{Since: b.show(t, foreign).StoredAt}, sorted(foreign)},
		"resource":    {dlq.Filter{Resource: "server-2"}, sorted(second)},
		"ids":         {dlq.Filter{IDs: []string{foreign, first}}, sorted(first, foreign)},
		"ids and":     {dlq.Filter{IDs: []string{foreign, first}, Class: envelope.ClassDecode}, sorted(foreign)},
		"other batch": {dlq.Filter{Batch: "none"}, []string{}},
		"both":        {dlq.Filter{TenantID: "tenant-2", Durable: durable}, []string{}},
	} {
		require.Equal(t, c.want, ids(b.list(t, c.filter)), name)
	}
}

func TestListFiltersByState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	replay := func(id string) dlq.Replay {
		r, err := b.queue.Replay(t.Context(), id, request("ola"))
		require.NoError(t, err)
		return r
	}
	open, claimed, replayed := b.bury(t, failed(t)), b.bury(t, failed(t)), b.bury(t, failed(t))
	resolved, discarded, again := b.bury(t, failed(t)), b.bury(t, failed(t)), b.bury(t, failed(t))
	_, err := b.queue.Claim(t.Context(), claimed, request("ola"))
	require.NoError(t, err)
	replay(replayed)
	replay(resolved)
	require.NoError(t, b.queue.Resolve(t.Context(), resolved, ""))
	_, err = b.queue.Discard(t.Context(), discarded, request("ola"))
	require.NoError(t, err)
	b.bury(t, b.replayFailed(t, replay(again).Sequence, "again"))

	for state, want := range map[dlq.State][]string{
		"":                 sorted(open, claimed, replayed, again),
		dlq.StateOpen:      sorted(open, again),
		dlq.StateClaimed:   sorted(claimed),
		dlq.StateReplayed:  sorted(replayed),
		dlq.StateResolved:  sorted(resolved),
		dlq.StateDiscarded: sorted(discarded),
		dlq.StateAny:       sorted(open, claimed, replayed, resolved, discarded, again),
	} {
		require.Equal(t, want, ids(b.list(t, dlq.Filter{State: state})), state)
	}
	require.Equal(t, sorted(resolved), ids(b.list(t, dlq.Filter{IDs: []string{resolved}})), "who names one means it in any state")
	for _, l := range b.list(t, dlq.Filter{State: dlq.StateAny}) {
		require.Equal(t, l.ID == open, l.Mark == nil)
		require.Empty(t, l.Data)
		require.Equal(t, b.show(t, l.ID).State, l.State, "List and Show agree")
	}
	require.Equal(t, again, b.list(t, dlq.Filter{})[3].ID, "in the order of the last failure")
}

func TestListRefusesAFilterThatMeansNothing(t *testing.T) {
	t.Parallel()
	now := time.Now()
	_, err := collect(t.Context(), setup(t).queue, dlq.Filter{
		IDs: []string{}, State: "opne", Class: "x", Since: now, Until: now,
	})
	require.ErrorContains(t, err, "Filter.IDs: is empty")
	require.ErrorContains(t, err, "Filter.State")
	require.ErrorContains(t, err, "Filter.Class")
	require.ErrorContains(t, err, "Filter.Until")
	_, err = collect(t.Context(), setup(t).queue, dlq.Filter{IDs: []string{"l12"}})
	require.ErrorContains(t, err, "Filter.IDs: holds what is no letter id")
}

// What somebody else published there is said, and hides nothing behind it.
func TestListGoesOnBehindWhatIsNoLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.bury(t, failed(t))
	_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: "dv.plattform.dlq.x", Data: []byte("?")})
	require.NoError(t, err)
	second := b.bury(t, failed(t))

	var got []string
	var faults []error
	for l, err := range b.queue.List(t.Context(), dlq.Filter{}) {
		if err != nil {
			faults = append(faults, err)
			continue
		}
		got = append(got, l.ID)
	}
	require.Equal(t, []string{first, second}, got)
	require.Len(t, faults, 1)
	malformed, ok := errors.AsType[*dlq.MalformedError](faults[0])
	require.True(t, ok)
	require.Equal(t, uint64(2), malformed.Sequence)
}

func TestListEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]int{"held": 600, "two passes": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testListEndsWithItsContext(t, hold)
		})
	}
}

func testListEndsWithItsContext(t *testing.T, hold int) {
	t.Helper()
	b := setup(t)
	b.fill(t, 600)
	b.queue.Hold(hold)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	var last error
	for _, err := range b.queue.List(ctx, dlq.Filter{}) {
		if n++; n == 10 {
			cancel()
		}
		last = err
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Less(t, n, 20)
	b.requireNoConsumers(t)
}

// Ephemeral consumers that stay behind add up on the server (requirement T5).
func TestNothingIsLeftOnTheServer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(t, 600)
	b.queue.Hold(10)
	for range b.queue.List(t.Context(), dlq.Filter{}) {
		break
	}
	letters := b.list(t, dlq.Filter{})
	b.show(t, letters[0].ID)
	_, err := b.queue.Replay(t.Context(), letters[0].ID, request("ola"))
	require.NoError(t, err)
	b.requireNoConsumers(t)
}

// A change of leader or an impatient operator can take the reading consumer away.
func TestListSurvivesTheLossOfItsConsumer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(t, 1200)
	b.queue.Hold(10) // letters come while they are read
	s, err := b.js.Stream(t.Context(), "DV_PLATTFORM_DLQ")
	require.NoError(t, err)
	var got []uint64
	removed := 0
	for l, err := range b.queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		if got = append(got, l.LetterSequence); len(got) == 10 {
			for name := range s.ConsumerNames(t.Context()).Name() {
				require.NoError(t, s.DeleteConsumer(t.Context(), name))
				removed++
			}
		}
	}
	require.Equal(t, 1, removed, "more than the bound is not held but read again")
	require.Len(t, got, 1200)
	require.True(t, slices.IsSorted(got))
}

// A message that is lost on the way must not be missing in the list.
func TestListNoticesAGap(t *testing.T) {
	t.Parallel()
	for name, stolen := range map[string]int{"in the middle": 5, "to the end": 1200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testListNoticesAGap(t, stolen)
		})
	}
}

func testListNoticesAGap(t *testing.T, steal int) {
	t.Helper()
	b := setup(t)
	b.fill(t, 1200)
	b.queue.Hold(10) // letters come while they are read
	s, err := b.js.Stream(t.Context(), "DV_PLATTFORM_DLQ")
	require.NoError(t, err)
	n := 0
	for _, err := range b.queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		if n++; n != 10 {
			continue
		}
		// Somebody else takes messages from the reading consumer: to the reader
		// it looks as if they were lost.
		for name := range s.ConsumerNames(t.Context()).Name() {
			thief, err := s.Consumer(t.Context(), name)
			require.NoError(t, err)
			stolen, err := thief.FetchNoWait(steal)
			require.NoError(t, err)
			for range stolen.Messages() {
			}
		}
	}
	require.Equal(t, 1200, n)
}

func (b *bundle) requireNoConsumers(tb testing.TB) {
	tb.Helper()
	for name, declared := range map[string]int{"DV_PLATTFORM_DLQ": 0, "DV_PLATTFORM_DLQOPS": 1} {
		s, err := b.js.Stream(tb.Context(), name)
		require.NoError(tb, err)
		require.Equal(tb, declared, s.CachedInfo().State.Consumers, name)
	}
}

// Several pages, and each letter once.
func TestListIsComplete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(t, 2000)
	began := time.Now()
	letters := b.list(t, dlq.Filter{})
	t.Logf("2,000 letters listed in %s", time.Since(began))
	require.Len(t, letters, 2000)
	for i, l := range letters {
		require.Equal(t, uint64(i+1), l.LetterSequence)
	}
	b.queue.Hold(10)
	require.Equal(t, letters, b.list(t, dlq.Filter{}), "in two passes")
	b.queue.Hold(2000)
	require.Equal(t, letters, b.list(t, dlq.Filter{}), "in one pass, just so")
}

// Replaying what is being listed is what operators do.
func TestListAndReplayAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(t, 40)
	n := 0
	for l, err := range b.queue.List(t.Context(), dlq.Filter{}) {
		require.NoError(t, err)
		_, err = b.queue.Replay(t.Context(), l.ID, request("ola"))
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 40, n)
	require.Len(t, b.list(t, dlq.Filter{State: dlq.StateReplayed}), 40)
}

// A stream that was lost and created anew gives the same sequences out again:
// what was remembered of the old one must not hide what is in the new one.
func TestNewStreamUnderTheSameNameIsReadAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := b.bury(t, failed(t))
	b.bury(t, failed(t))
	require.NoError(t, b.queue.WriteMark(t.Context(), b.show(t, old), dlq.StateDiscarded, "operator:ola"))
	require.Len(t, b.list(t, dlq.Filter{State: dlq.StateAny}), 2)

	require.NoError(t, b.js.DeleteStream(t.Context(), "DV_PLATTFORM_DLQ"))
	_, err := b.js.CreateStream(t.Context(), topology.DeadLetters(service, topology.Limits{}).Config())
	require.NoError(t, err)
	first, second := b.bury(t, failed(t)), b.bury(t, failed(t))
	require.Equal(t, sorted(first, second), ids(b.list(t, dlq.Filter{})))
	_, err = b.queue.Show(t.Context(), old)
	require.ErrorIs(t, err, dlq.ErrNotFound)
}

// A mark on a copy that was lost must not close the copy that came instead, even
// on the same sequence.
func TestMarkOnALostCopyClosesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	id := b.bury(t, f)
	require.NoError(t, b.queue.WriteMark(t.Context(), b.show(t, id), dlq.StateDiscarded, "operator:ola"))
	require.NoError(t, b.js.DeleteStream(t.Context(), "DV_PLATTFORM_DLQ"))
	_, err := b.js.CreateStream(t.Context(), topology.DeadLetters(service, topology.Limits{}).Config())
	require.NoError(t, err)
	require.Equal(t, id, b.bury(t, f))
	l := b.show(t, id)
	require.Equal(t, uint64(1), l.LetterSequence)
	require.Equal(t, dlq.StateOpen, l.State)
}

// Removing letters, also the last one, confuses nobody.
func TestRemovedLettersAreGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, last := b.bury(t, failed(t)), b.bury(t, failed(t))
	require.Len(t, b.list(t, dlq.Filter{}), 2)
	s, err := b.js.Stream(t.Context(), "DV_PLATTFORM_DLQ")
	require.NoError(t, err)
	require.NoError(t, s.DeleteMsg(t.Context(), 2))
	require.Equal(t, []string{first}, ids(b.list(t, dlq.Filter{})))
	for _, id := range []string{last, "l" + fmt.Sprintf("%040d", 7)} {
		_, err = b.queue.Show(t.Context(), id)
		require.ErrorIs(t, err, dlq.ErrNotFound)
	}
	_, err = b.queue.Show(t.Context(), "7")
	_, ok := errors.AsType[*dlq.FieldError](err)
	require.True(t, ok)
}

func TestLetterAsJSONIsForTools(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	text := asJSON(t, b.show(t, id))
	for _, part := range []string{`"id":"` + id, `"state":"replayed"`, `"class":"exhausted"`, `"by":"operator:ola"`, `"data":"`} {
		require.Contains(t, text, part)
	}
	require.NotContains(t, asJSON(t, b.list(t, dlq.Filter{})[0]), `"data"`)
}

// fill stores n letters the quick way: copies of one with ids of their own.
func (b *bundle) fill(tb testing.TB, n int) {
	tb.Helper()
	f := failed(tb)
	h := dlq.LetterHeader(f, 0)
	acks := make([]jetstream.PubAckFuture, 0, n)
	for i := range n {
		m := &nats.Msg{Subject: "dv.plattform.dlq." + original, Header: nats.Header{}, Data: f.Data}
		for name, values := range h {
			m.Header[name] = values
		}
		m.Header[envelope.HeaderLetterID] = []string{"l" + fmt.Sprintf("%040x", i)}
		m.Header[envelope.HeaderMsgID] = []string{fmt.Sprintf("l%040x/d0", i)}
		ack, err := b.js.PublishMsgAsync(m, jetstream.WithStallWait(10*time.Second))
		require.NoError(tb, err)
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			require.NoError(tb, err)
		}
	}
}

func benchmarkList(b *testing.B, n int, f dlq.Filter, want int) {
	s := setup(b)
	s.fill(b, n)
	b.ReportAllocs()
	for b.Loop() {
		seen := 0
		for _, err := range s.queue.List(b.Context(), f) {
			require.NoError(b, err)
			seen++
		}
		require.Equal(b, want, seen)
	}
}

func BenchmarkList2000(b *testing.B)   { benchmarkList(b, 2000, dlq.Filter{}, 2000) }
func BenchmarkList100000(b *testing.B) { benchmarkList(b, 100_000, dlq.Filter{}, 100_000) }

// One workflow among many.
func BenchmarkSearch100000(b *testing.B) {
	benchmarkList(b, 100_000, dlq.Filter{CorrelationID: "none"}, 0)
}
