package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dlq"
)

// brokenPipe is an output that nobody reads any more.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("pipe is closed") }

func TestAgesShowTheirTwoLargestUnits(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0ms", 40 * time.Millisecond: "40ms", 9 * time.Second: "9s", 61 * time.Second: "1m01s",
		3*time.Hour + 2*time.Minute + time.Second: "3h02m", 50 * time.Hour: "2d02h",
	} {
		require.Equal(t, want, age(d))
	}
}

func TestTimesAreShownBothWays(t *testing.T) {
	t.Parallel()
	p := &page{now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	cet := time.FixedZone("CET", 3600)
	require.Equal(t, "2026-03-04T03:06:07Z (2h00m ago)", p.when(time.Date(2026, 3, 4, 4, 6, 7, 0, cet)))
	require.Equal(t, "2026-03-04T05:06:11Z (in 4s)", p.when(p.now.Add(4*time.Second)))
	require.Empty(t, p.when(time.Time{}))
}

func TestSinceTakesAnAgeOrATime(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"": {}, "90m": now.Add(-90 * time.Minute), "3d": now.Add(-72 * time.Hour),
		"2026-03-01": time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), "2026-03-01T12:00:00+01:00": time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC),
	} {
		got, err := parseSince(text, now)
		require.NoError(t, err)
		require.True(t, want.Equal(got), text)
	}
	for _, text := range []string{"-2h", "0s", "d", "-1d", "2", "yesterday"} {
		_, err := parseSince(text, now)
		require.Error(t, err, text)
	}
}

// A service may put anything into an error text or a header.
func TestForeignTextCannotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	require.Equal(t, " [31mred  [2J é �", clean("\x1b[31mred\r\u009b[2J\u202eé \xff"))
	p := &page{}
	p.table([]string{"A", "B"}, [][]string{{"x\ty\nz", ""}, {"w", "é"}})
	require.Equal(t, "A      B\nx y z  -\nw      é\n", p.String())
}

func TestShortIdsAreCutWhereTheyStayDifferent(t *testing.T) {
	t.Parallel()
	ids := []string{"l" + strings.Repeat("a", 40), "l" + strings.Repeat("a", 11) + strings.Repeat("b", 29)}
	r := dlqListResult{Letters: []listed{{Letter: dlq.Letter{ID: ids[0]}}, {Letter: dlq.Letter{ID: ids[1]}}}}
	require.Equal(t, "l"+strings.Repeat("a", 12), r.short()(ids[0]))
	require.Equal(t, "l"+strings.Repeat("a", 11)+"b", r.short()(ids[1]))
	r.Letters = r.Letters[:1]
	require.Equal(t, "l"+strings.Repeat("a", 9), r.short()(ids[0]))
	require.Equal(t, "short", r.short()("short"))
}

func TestTrimKeepsTheNewestAndCountsTheRest(t *testing.T) {
	t.Parallel()
	r := dlqListResult{Letters: []listed{{Letter: dlq.Letter{ID: "a"}}, {Letter: dlq.Letter{ID: "b"}}, {Letter: dlq.Letter{ID: "c"}}}}
	r.trim(0)
	require.Len(t, r.Letters, 3)
	r.trim(2)
	require.Equal(t, "b", r.Letters[0].ID)
	require.Equal(t, 1, r.Omitted)
}

func TestJoinedErrorsAreTakenApartAndOthersStayWhole(t *testing.T) {
	t.Parallel()
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	require.Equal(t, []error{a, b, c}, leaves(errors.Join(a, errors.Join(b, c))))
	whole := fmt.Errorf("dial: %w: %w", a, b)
	require.Equal(t, []error{whole}, leaves(whole))
	require.Empty(t, leaves(nil))
}

// Only a replay takes over what somebody has abandoned.
func TestAConflictIsExplainedByWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	claimed := &dlq.ConflictError{LetterID: "l1", State: dlq.StateClaimed, By: "operator:kari"}
	require.ErrorContains(t, advise(claimed, replayLetters), "is taken over")
	require.ErrorContains(t, advise(claimed, discardLetters), "can be discarded with --again")
	for _, state := range []dlq.State{dlq.StateClaimed, dlq.StateReplayed} {
		conflict := &dlq.ConflictError{LetterID: "l1", State: state, By: "operator:kari"}
		require.Equal(t, conflict, advise(conflict, restoreLetters), "which has no --again")
		require.ErrorIs(t, advise(conflict, discardLetters), conflict)
	}
}

func TestTheEndOfAContextIsExplained(t *testing.T) {
	t.Parallel()
	failed := errors.New("read: canceled")
	require.Equal(t, failed, explainEnd(t.Context(), failed))
	require.NoError(t, explainEnd(expired(t), nil))
	require.EqualError(t, explainEnd(expired(t), failed), "interrupted: read: canceled")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 0, &timeoutError{time.Second})
	defer cancel()
	<-ctx.Done()
	require.EqualError(t, explainEnd(ctx, failed), "not finished within 1s; allow more with --timeout: read: canceled")
	require.ErrorIs(t, explainEnd(ctx, failed), context.DeadlineExceeded)
}
