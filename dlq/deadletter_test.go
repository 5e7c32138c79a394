package dlq_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

// deadLetterer is what package consumer asks for.
type deadLetterer interface {
	DeadLetter(ctx context.Context, f *envelope.Failure) (letterID string, err error)
	Resolve(ctx context.Context, letterID, note string) error
}

var _ deadLetterer = (*dlq.Queue)(nil)

func TestLetterHoldsTheOriginal(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	f.Header["X-Partner"] = []string{"acme"}
	id := b.bury(t, f)

	raw := b.stored(t, "DV_PLATTFORM_DLQ", 1)
	require.Equal(t, "dv.plattform.dlq."+original, raw.Subject)
	require.Equal(t, f.Data, raw.Data)
	require.Equal(t, id+"/d0", raw.Header.Get(envelope.HeaderMsgID))

	l := b.show(t, id)
	require.Equal(t, dlq.StateOpen, l.State)
	require.Equal(t, f.Data, l.Data)
	require.Equal(t, len(f.Data), l.Size)
	require.Equal(t, f.Subject, l.Subject)
	require.Equal(t, f.Envelope.CorrelationID, l.CorrelationID)
	require.Equal(t, "tenant-1", l.TenantID)
	require.Equal(t, "no room in rack 12", l.Error)
	require.Equal(t, envelope.Header{"X-Partner": {"acme"}}, l.OriginalHeader)
	require.Equal(t, uint64(1), l.LetterSequence)
	require.WithinDuration(t, raw.Time, l.StoredAt, 0)
}

// A crash between the letter and the end of the original repeats the letter.
func TestSameFailureIsStoredOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	first := b.bury(t, f)
	f.Attempts++
	require.Equal(t, first, b.bury(t, f))
	require.Equal(t, 1, b.letters(t))
}

func TestEveryDurableHasItsOwnLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	first := b.bury(t, f)
	f.Durable = "plattform__audit"
	require.NotEqual(t, first, b.bury(t, f))
	require.Equal(t, 2, b.letters(t))
}

// A forged or repeated envelope id must not swallow the letter of another
// message: the server compares the message id only.
func TestOtherBytesUnderTheSameIDAreNotSwallowed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	first := b.bury(t, f)
	twin := *f
	twin.Data, twin.Sequence = append(bytes.Clone(f.Data), ' '), f.Sequence+1
	second := b.bury(t, &twin)
	require.NotEqual(t, first, second)
	require.Equal(t, f.Data, b.show(t, first).Data)
	require.Equal(t, twin.Data, b.show(t, second).Data)
}

// "Duplicate" is no proof that the letter is there.
func TestLetterThatWasRemovedMeanwhileIsAnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	b.bury(t, f)
	stream, err := b.js.Stream(t.Context(), "DV_PLATTFORM_DLQ")
	require.NoError(t, err)
	require.NoError(t, stream.Purge(t.Context()))
	_, err = b.queue.DeadLetter(t.Context(), f)
	require.ErrorIs(t, err, dlq.ErrDuplicate)
}

// The consumer holds the message back until there is room; what operators need
// to make room is in the other stream.
func TestFullStreamIsSaidAndLocksNobodyOut(t *testing.T) {
	t.Parallel()
	b := setupWith(t, topology.Limits{MaxMsgs: 2}, dlq.Config{})
	first := b.bury(t, failed(t))
	b.bury(t, failed(t))
	_, err := b.queue.DeadLetter(t.Context(), failed(t))
	require.ErrorIs(t, err, dlq.ErrFull)
	require.ErrorContains(t, err, "DV_PLATTFORM_DLQ")

	_, err = b.queue.Replay(t.Context(), first, request("ola"))
	require.NoError(t, err)
	require.NoError(t, b.queue.Resolve(t.Context(), first, ""))
	require.Equal(t, dlq.StateResolved, b.show(t, first).State)
	require.Len(t, b.list(t, dlq.Filter{}), 1)
}

func TestFullOperatorStreamIsSaidToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	cfg := topology.DeadLetterOps(service, topology.Limits{}).Config()
	cfg.MaxMsgs = 1
	_, err := b.js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	_, err = b.queue.Replay(t.Context(), id, request("ola"))
	require.ErrorIs(t, err, dlq.ErrFull)
	require.ErrorContains(t, err, "DV_PLATTFORM_DLQOPS")
}

// A subject that no letter can embed must not stop its consumer for good.
func TestUnaddressableOriginalIsKept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, s := range []string{"", "dv.maskin.evt." + strings.Repeat("x.", 2000) + "x", "dv.nett.dlq.dv.nett.evt.a.b"} {
		f := failed(t, func(f *envelope.Failure) { f.Subject = s })
		id := b.bury(t, f)
		l := b.show(t, id)
		if s != "" {
			require.Equal(t, s, l.Subject)
		}
		require.Equal(t, f.Data, l.Data)
	}
	require.Equal(t, 3, b.count(t, "DV_PLATTFORM_DLQ", "dv.plattform.dlq.unaddressable.*"))
}

// The letter adds headers to a message that was as large as allowed: what does
// not fit is left out, least important first, and said.
func TestOversizeMessageIsKeptWithoutWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]struct {
		size    int
		omitted bool
	}{
		"no room for its headers": {topology.MaxLetterSize - 8<<10, false},
		"no room for its bytes":   {topology.MaxLetterSize, true},
	} {
		f := failed(t, func(f *envelope.Failure) {
			f.Data, f.Envelope, f.Class = bytes.Repeat([]byte("x"), c.size), nil, envelope.ClassDecode
			f.Header["X-Partner"] = []string{strings.Repeat("y", 12<<10)}
			f.Sequence = uint64(c.size)
		})
		id := b.bury(t, f)
		l := b.show(t, id)
		require.Equal(t, c.omitted, l.DataOmitted, name)
		require.Equal(t, c.size, l.Size, name)
		require.Equal(t, 1, l.OriginalHeaderCut, name)
		if !c.omitted {
			require.Equal(t, f.Data, l.Data, name)
			continue
		}
		require.Empty(t, l.Data, name)
		require.Equal(t, id, b.bury(t, f), name)
		_, err := b.queue.Replay(t.Context(), id, request("ola"))
		require.ErrorIs(t, err, dlq.ErrNoData, name)
		for _, l := range b.list(t, dlq.Filter{State: dlq.StateOpen}) {
			require.True(t, l.ID != id || l.Size == c.size, name)
		}
	}
}

// A row of docs/DELIVERY.md.
func TestFailedReplayIsANewCopyOfTheSameLetter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	id := b.bury(t, f)
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)

	again := b.replayFailed(t, r.Sequence, "still no room")
	require.Equal(t, id, b.bury(t, again))
	require.Equal(t, id, b.bury(t, again)) // crash before the replay was terminated
	require.Equal(t, 2, b.letters(t))

	l := b.show(t, id)
	require.Equal(t, dlq.StateOpen, l.State)
	require.Equal(t, 1, l.Round)
	require.Equal(t, "still no room", l.Error)
	require.Equal(t, f.Subject, l.Subject)
	require.Equal(t, source, l.Stream)
	require.Equal(t, f.Sequence, l.Sequence)
	require.Equal(t, f.StoredAt.UTC(), l.OriginalStoredAt)
	require.Equal(t, f.Data, l.Data)
	require.Equal(t, id+"/d1", b.stored(t, "DV_PLATTFORM_DLQ", 2).Header.Get(envelope.HeaderMsgID))

	// A filter looks at the last failure only, however the list is read.
	for _, hold := range []int{10, 0} {
		b.queue.Hold(hold)
		require.Empty(t, b.list(t, dlq.Filter{Class: envelope.ClassExhausted}))
		require.Len(t, b.list(t, dlq.Filter{Class: envelope.ClassPoison}), 1)
	}

	// Its history: two failures, and who replayed between them.
	require.Len(t, l.Copies, 2)
	require.Equal(t, "no room in rack 12", l.Copies[0].Error)
	require.Equal(t, 20, l.Copies[0].Attempts)
	require.Equal(t, envelope.ClassPoison, l.Copies[1].Class)
	require.Len(t, l.Marks, 2)
	require.Equal(t, dlq.StateReplayed, l.Marks[1].State)

	r, err = b.queue.Replay(t.Context(), id, request("kari"))
	require.NoError(t, err)
	require.Equal(t, 2, r.Round)
	require.Equal(t, id+"/r2", r.MessageID)
}

// The first failure may be reported once more while an operator is at work: the
// letter must not look as if the replay had failed.
func TestLateRepetitionDoesNotOpenALetterThatIsBeingReplayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	id := b.bury(t, f)
	_, err := b.queue.Claim(t.Context(), id, request("ola"))
	require.NoError(t, err)
	b.bury(t, f)
	require.Equal(t, dlq.StateClaimed, b.show(t, id).State)
	require.Equal(t, 1, b.letters(t))
}

// Beyond the duplicate window a repetition is stored: a second copy of one
// failure, of which the newest counts and which never hides a decision.
func TestRepetitionBeyondTheWindowIsListedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	b.repeat(t, 1, map[string]string{dlq.HeaderError: "newer"})
	require.Equal(t, 2, b.letters(t))
	for _, hold := range []int{10, 0} { // in one pass and in two
		b.queue.Hold(hold)
		letters := b.list(t, dlq.Filter{})
		require.Len(t, letters, 1)
		require.Equal(t, "newer", letters[0].Error)
	}
	require.Equal(t, "newer", b.show(t, id).Error)

	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	b.repeat(t, 1, nil)
	require.Equal(t, dlq.StateReplayed, b.show(t, id).State)
}

// repeat stores a letter once more, as the server does when it has forgotten the
// message id.
func (b *bundle) repeat(tb testing.TB, sequence uint64, change map[string]string) {
	tb.Helper()
	raw := b.stored(tb, "DV_PLATTFORM_DLQ", sequence)
	raw.Header.Del(envelope.HeaderMsgID)
	raw.Header.Del("Nats-Expected-Stream")
	for name, v := range change {
		raw.Header.Set(name, v)
	}
	_, err := b.js.PublishMsg(tb.Context(), &nats.Msg{Subject: raw.Subject, Header: raw.Header, Data: raw.Data})
	require.NoError(tb, err)
}

// repeatFailure stores f as the server does once it has forgotten its message id.
func (b *bundle) repeatFailure(tb testing.TB, f *envelope.Failure) {
	tb.Helper()
	h := nats.Header(dlq.LetterHeader(f, 0))
	_, err := b.js.PublishMsg(tb.Context(), &nats.Msg{Subject: "dv.plattform.dlq." + f.Subject, Header: h, Data: f.Data})
	require.NoError(tb, err)
}

func TestResolveClosesTheLetterOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)

	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { require.NoError(t, b.queue.Resolve(t.Context(), id, "handled by "+durable)) })
	}
	all.Wait()
	l := b.show(t, id)
	require.Equal(t, dlq.StateResolved, l.State)
	require.Len(t, l.Marks, 3)
	last := l.Marks[2]
	require.Equal(t, "service:plattform", last.By)
	require.Equal(t, "handled by "+durable, last.Note)
	require.Equal(t, 1, last.Round)

	_, err = b.queue.Replay(t.Context(), id, request("kari"))
	resolved, ok := errors.AsType[*dlq.ResolvedError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, dlq.StateResolved, resolved.State)
	require.Equal(t, "service:plattform", resolved.By)
}

func TestResolveOfWhatNoMarkKnowsClosesItToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	require.NoError(t, b.queue.Resolve(t.Context(), id, strings.Repeat("n", 5000)))
	require.Equal(t, dlq.StateResolved, b.show(t, id).State)
	require.Error(t, b.queue.Resolve(t.Context(), "nonsense", ""))
}

// An effect that came after all does not hide the failure that came first, but a
// failure after the end is visible again.
func TestFailureAfterTheEndOpensTheLetterAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	require.NoError(t, b.queue.Resolve(t.Context(), id, ""))
	require.Empty(t, b.list(t, dlq.Filter{}))
	b.bury(t, b.replayFailed(t, r.Sequence, "delivered again and failed"))
	require.Len(t, b.list(t, dlq.Filter{State: dlq.StateOpen}), 1)
}

func TestDiscardedLetterStaysClosedUntilItFailsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	id := b.bury(t, f)
	require.NoError(t, b.queue.WriteMark(t.Context(), b.show(t, id), dlq.StateDiscarded, "operator:ola"))
	require.Equal(t, dlq.StateDiscarded, b.show(t, id).State)
	_, err := b.queue.Replay(t.Context(), id, request("ola"))
	_, ok := errors.AsType[*dlq.ResolvedError](err)
	require.True(t, ok, "%v", err)
	b.repeat(t, 1, nil)
	require.Equal(t, dlq.StateOpen, b.show(t, id).State)
}

// A mark of a newer version, or of nobody, must neither hide a letter nor let
// somebody act on a guess.
func TestUnreadableMarkKeepsTheLetterVisibleAndUntouched(t *testing.T) {
	t.Parallel()
	b := setup(t)
	f := failed(t)
	id := b.bury(t, f)
	_, err := b.js.Publish(t.Context(), "dv.plattform.dlqmark."+id, []byte(`{"state":"edited"}`))
	require.NoError(t, err)
	require.Equal(t, dlq.StateUnknown, b.show(t, id).State)
	require.Equal(t, []string{id}, ids(b.list(t, dlq.Filter{})))
	_, err = b.queue.Replay(t.Context(), id, request("ola"))
	conflict, ok := errors.AsType[*dlq.ConflictError](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, dlq.StateUnknown, conflict.State)
	require.Equal(t, id, b.bury(t, f), "the consumer is not stopped by it")
}

func TestNilFailureIsAnError(t *testing.T) {
	t.Parallel()
	_, err := setup(t).queue.DeadLetter(t.Context(), nil)
	require.Error(t, err)
}

func FuzzDecodeMark(f *testing.F) {
	f.Add([]byte(`{"op":"0198c7a1-5c3e-7d20-9f4b-2a6e8d0c1b3f","state":"claimed","round":1,"by":"operator:ola","at":"2026-08-01T10:00:00Z"}`))
	f.Add([]byte(`{"op":"x","state":"open","round":-1,"sequence":9}`))
	f.Add([]byte(`{"at":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dlq.DecodeMark(data)
		if err != nil {
			return
		}
		require.Zero(t, m.Sequence, "what the server says cannot be forged in the mark")
		text, err := m.Encode()
		require.NoError(t, err)
		back, err := dlq.DecodeMark(text)
		require.NoError(t, err)
		require.True(t, m.At.Equal(back.At) && m.LetterStoredAt.Equal(back.LetterStoredAt))
		m.At, m.LetterStoredAt = back.At, back.LetterStoredAt
		require.Equal(t, m, back)
	})
}
