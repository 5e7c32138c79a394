package sites_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/sites"
)

func counted(stored time.Time, ids ...string) *sites.Counted {
	c := sites.NewCounted()
	for i, id := range ids {
		c.Add(id, uint64(i+1), stored)
	}
	return c
}

func TestADigestDependsOnNeitherOrderNorClocksAndRepeatsDoNotCancel(t *testing.T) {
	t.Parallel()
	ids, now := newIDs(200), time.Now()
	all := counted(now, ids...).Digest()
	shuffled := slices.Clone(ids)
	rand.Shuffle(len(ids), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	require.Equal(t, all, counted(now.Add(3*time.Hour), shuffled...).Digest(), "another order, another clock")
	require.NotEqual(t, all, counted(now, ids[1:]...).Digest())
	require.NotEqual(t, counted(now, ids[2:]...).Digest(), counted(now, append(ids[2:], ids[0], ids[0])...).Digest(), "an even number of repeats vanishes")
	require.NotEqual(t, all, counted(now, append(ids, ids[0])...).Digest())
}

// What an id says decides about its window, unless it says nothing that can be.
func TestIDsWithoutATimeAreInWindowsOfTheOriginsClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for id, want := range map[string][2]int{
		uuid.Must(uuid.NewV7()).String():    {1, 0},
		idAt(now.Add(-4 * time.Minute)):     {1, 0},
		idAt(now.Add(-2 * time.Hour)):       {1, 1}, // waited long in its outbox
		idAt(now.Add(2 * time.Hour)):        {1, 1}, // its author's clock is wrong
		idAt(now.Add(-20 * 24 * time.Hour)): {0, 1},
		uuid.NewString():                    {0, 1},
		"maskin-4711":                       {0, 1},
		"":                                  {0, 0},
		"<b>":                               {0, 0}, // needs an escape in JSON
		"a b":                               {0, 0},
		"ærlig":                             {0, 0},
		strings.Repeat("x", 129):            {0, 0},
	} {
		byTime, others := counted(now, id).Windows()
		require.Equal(t, want, [2]int{byTime, others}, id)
	}
}

// Memory is that of the minutes, not of the messages.
func TestAnIndexHasAsManyWindowsAsItsHorizonHasMinutes(t *testing.T) {
	t.Parallel()
	c, now := sites.NewCounted(), time.Now()
	const messages = 100_000
	for i := range messages {
		at := now.Add(-sites.DefaultHorizon * time.Duration(i%5000) / 5000)
		id := idAt(at)
		if i%2 == 0 {
			id = "other-" + id
		}
		c.Add(id, uint64(i+1), at)
		c.Add(idAt(at.Add(-time.Duration(i%96)*time.Hour)), uint64(i+1), at)
	}
	c.Prune()
	byTime, others := c.Windows()
	minutes := int(sites.DefaultHorizon/time.Minute) + 20
	require.LessOrEqual(t, byTime, minutes)
	require.LessOrEqual(t, others, minutes)
	require.Greater(t, byTime, minutes/2)
}
