package envelope_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Tables are partitioned by the time in an id, and two messages of one id would be
// one.
func TestIDsAreOfVersion7AndIncreaseWithinAProcess(t *testing.T) {
	t.Parallel()
	const writers, each = 4, 5000
	draft := provisioned.New("server/9a1", provisionedV1{})
	began := time.Now().Truncate(time.Millisecond)
	made := make([][]string, writers)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			for range each {
				_, id := draft.Identify()
				made[i] = append(made[i], id)
			}
		})
	}
	all.Wait()
	// A clock that did not move is counted on, in steps of 256 ns.
	ended := time.Now().Add(writers * each * 256 * time.Nanosecond)

	seen, tails := map[string]bool{}, map[string]bool{}
	for _, ids := range made {
		last := ""
		for _, text := range ids {
			require.Less(t, last, text)
			last = text
			id, err := uuid.Parse(text)
			require.NoError(t, err)
			require.EqualValues(t, 7, id.Version())
			require.Equal(t, uuid.RFC4122, id.Variant())
			at := time.Unix(id.Time().UnixTime())
			require.False(t, at.Before(began) || at.After(ended), "%s tells %v, made between %v and %v", text, at, began, ended)
			seen[text], tails[text[19:]] = true, true
		}
	}
	require.Len(t, seen, writers*each)
	require.Len(t, tails, writers*each, "the random bits do not repeat")
}
