package dlq_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
)

// failing gives a failure its cause.
func failing(class envelope.Class, text string) func(*envelope.Failure) {
	return func(f *envelope.Failure) { f.Class, f.Err = class, errors.New(text) }
}

func TestGroupsCountWhatFailedAlike(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := time.Now().Add(-time.Second)
	var full []string
	for i := range 3 {
		full = append(full, b.bury(t, failed(t, failing(envelope.ClassExhausted, fmt.Sprintf("no room in rack %d after %ds", i, 3+i)))))
	}
	other := b.bury(t, failed(t, failing(envelope.ClassPoison, "no hostname")))
	_, err := b.queue.Replay(t.Context(), full[0], request("ola"))
	require.NoError(t, err)

	groups, err := b.queue.Groups(t.Context(), dlq.Filter{})
	require.NoError(t, err)
	require.Len(t, groups, 2)
	g := groups[0]
	require.Equal(t, 3, g.Letters, "the largest first")
	require.Equal(t, map[dlq.State]int{dlq.StateOpen: 2, dlq.StateReplayed: 1}, g.States)
	require.Equal(t, "no room in rack # after #", g.Error)
	require.Equal(t, envelope.ClassExhausted, g.Class)
	require.Equal(t, durable, g.Durable)
	require.Equal(t, "maskin.server.provisioned", g.Type)
	require.Equal(t, full[2], g.Example, "the newest")
	require.Equal(t, b.show(t, full[0]).StoredAt, g.FirstAt)
	require.Equal(t, b.show(t, full[2]).StoredAt, g.LastAt)
	require.True(t, before.Before(g.FirstAt) && g.FirstAt.Before(g.LastAt))
	require.Equal(t, sorted(full...), ids(b.list(t, dlq.Filter{Fingerprint: g.Fingerprint})))
	require.Equal(t, other, groups[1].Example)

	groups, err = b.queue.Groups(t.Context(), dlq.Filter{State: dlq.StateOpen, Class: envelope.ClassExhausted})
	require.NoError(t, err)
	require.Len(t, groups, 1)
	require.Equal(t, 2, groups[0].Letters)
	_, err = b.queue.Groups(t.Context(), dlq.Filter{State: "opne"})
	require.ErrorContains(t, err, "Filter.State")
}

// A letter is in the group of its last failure only.
func TestALetterThatFailsOtherwiseChangesItsGroup(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	b.bury(t, b.replayFailed(t, r.Sequence, "another cause"))
	groups, err := b.queue.Groups(t.Context(), dlq.Filter{})
	require.NoError(t, err)
	require.Len(t, groups, 1)
	require.Equal(t, "another cause", groups[0].Error)
	require.Equal(t, 1, groups[0].Letters)
	none, err := b.queue.Groups(t.Context(), dlq.Filter{Class: envelope.ClassExhausted})
	require.NoError(t, err)
	require.Empty(t, none)
}

// How long a cause has been there does not begin anew with each replay that fails
// of it.
func TestALetterThatFailsAlikeAgainCountsFromItsFirstFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.bury(t, failed(t))
	first := b.show(t, id).StoredAt
	r, err := b.queue.Replay(t.Context(), id, request("ola"))
	require.NoError(t, err)
	again := b.replayFailed(t, r.Sequence, "no room in rack 13")
	again.Class = envelope.ClassExhausted
	b.bury(t, again)
	groups, err := b.queue.Groups(t.Context(), dlq.Filter{})
	require.NoError(t, err)
	require.Len(t, groups, 1)
	require.Equal(t, 1, groups[0].Letters)
	require.Equal(t, first, groups[0].FirstAt)
	require.Equal(t, b.show(t, id).StoredAt, groups[0].LastAt)
	require.True(t, first.Before(groups[0].LastAt))
}

// Another author may leave the fingerprint out; such a letter is still in a group
// that can be selected.
func TestALetterWithoutAFingerprintGetsOne(t *testing.T) {
	t.Parallel()
	h := dlq.LetterHeader(failed(t), 0)
	want := h.Get(dlq.HeaderFingerprint)
	delete(h, dlq.HeaderFingerprint)
	l, err := dlq.ParseLetter(h)
	require.NoError(t, err)
	require.Equal(t, want, l.Fingerprint)
}

func BenchmarkGroups100000(b *testing.B) {
	s := setup(b)
	s.fill(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		groups, err := s.queue.Groups(b.Context(), dlq.Filter{})
		require.NoError(b, err)
		require.Len(b, groups, 1)
		require.Equal(b, 100_000, groups[0].Letters)
	}
}
