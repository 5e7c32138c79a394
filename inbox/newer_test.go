package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// newer asks in a transaction that is committed if it is told to.
func (b *bundle) newer(t *testing.T, in *inbox.Inbox, commit bool, key string, version int64) (newer bool) {
	t.Helper()
	undo := errors.New("undo")
	err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) (err error) {
		newer, err = in.Newer(t.Context(), tx, key, version)
		if err == nil && !commit {
			err = undo
		}
		return err
	})
	if commit || !errors.Is(err, undo) {
		require.NoError(t, err)
	}
	return newer
}

func TestOnlyWhatIsNewerIsApplied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.True(t, b.newer(t, b.in, true, "server/1", -3), "the first, whatever it is")
	require.False(t, b.newer(t, b.in, true, "server/1", -3), "equal is not newer")
	require.True(t, b.newer(t, b.in, true, "server/1", 7))
	require.False(t, b.newer(t, b.in, true, "server/1", 6))
	require.True(t, b.newer(t, b.in, true, "server/2", 6), "keys are apart")
	require.True(t, b.newer(t, b.inbox(t, "another"), true, "server/1", 6), "consumers are apart")
	require.True(t, b.newer(t, b.in, false, "server/1", 8))
	require.True(t, b.newer(t, b.in, true, "server/1", 8), "what is rolled back was not applied")
}

// In whatever order and however often versions come, in transactions beside one
// another, the last effect is that of the newest, and each effect is newer than the
// one before.
func TestVersionsInAnyOrderEndAtTheNewest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `create table state (version bigint); insert into state values (0)`)
	var group sync.WaitGroup
	for _, n := range rand.Perm(40) {
		for range 2 {
			group.Go(func() {
				if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
					newer, err := b.in.Newer(t.Context(), tx, "server/1", int64(n+1))
					if err != nil || !newer {
						return err
					}
					tag, err := tx.Exec(t.Context(), `update state set version = $1 where version < $1`, n+1)
					if err == nil && tag.RowsAffected() == 0 {
						err = fmt.Errorf("version %d was applied over a newer one", n+1)
					}
					return err
				}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	require.Equal(t, 40, b.count(t, `select version::int from state`))
}

func TestNewestOfEachKeyOfABatchIsApplied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.newer(t, b.in, true, "c", 9)
	ask := func(of ...inbox.Version) (newer []bool) {
		require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) (err error) {
			newer, err = b.in.NewerAll(t.Context(), tx, of)
			return err
		}))
		return newer
	}
	require.Empty(t, ask())
	all := []inbox.Version{{"b", 2}, {"a", 1}, {"b", 5}, {"c", 8}, {"b", 5}, {"a", 0}, {"c", 9}}
	require.Equal(t, []bool{false, true, true, false, false, false, false}, ask(all...))
	require.Equal(t, make([]bool, len(all)), ask(all...), "told again")

	// Many at once with the same keys in any order wait, and never for one another.
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for n := range 20 {
				var of []inbox.Version
				for _, key := range rand.Perm(30) {
					of = append(of, inbox.Version{Key: fmt.Sprint("many/", key), Version: int64(n)})
				}
				if err := pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
					_, err := b.in.NewerAll(t.Context(), tx, of)
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func TestKeyOutOfBoundsIsPermanentAndTouchesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.in.Once(t.Context(), newMessage(), func(ctx context.Context, tx pgx.Tx) error {
		for _, key := range []string{"", strings.Repeat("k", 513), "a\x00b", "\xff"} {
			_, err := b.in.Newer(ctx, tx, key, 1)
			require.True(t, envelope.IsPermanent(err), "%q", key)
			require.ErrorContains(t, err, "Version.Key")
		}
		newer, err := b.in.Newer(ctx, tx, strings.Repeat("å", 256), 1)
		require.True(t, newer)
		return err
	}))
}
