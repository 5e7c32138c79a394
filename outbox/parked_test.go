package outbox_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/outbox"
)

// operators is an outbox without relay or broker: what operators do is between
// them and the database.
func operators(t testing.TB) bundle {
	t.Helper()
	return bundle{pool: dvtest.Postgres(t), out: newOutbox(t)}
}

// park does what the relay does with a key whose n-th message cannot be stored,
// and returns the message's id.
func (b bundle) park(t testing.TB, key string, n int) (id string) {
	t.Helper()
	require.NoError(t, b.pool.QueryRow(t.Context(), `
insert into messaging.outbox_parked as p (stream, ordering_key, seq, id, subject, cause)
select stream, ordering_key, seq, id, subject, 'message size exceeds maximum allowed (10054)' from messaging.outbox_events
 where ordering_key = $1 order by seq offset $2 - 1 limit 1
on conflict (stream, ordering_key) do update
   set seq = excluded.seq, id = excluded.id, cause = excluded.cause, parked_at = clock_timestamp(),
       released_at = null, released_by = null, reason = null
returning id::text`, key, n).Scan(&id))
	return id
}

// parked returns the only parked key.
func (b bundle) parked(t testing.TB) outbox.Parked {
	t.Helper()
	all, err := outbox.ListParked(t.Context(), b.pool, "", outbox.ParkedFilter{})
	require.NoError(t, err)
	require.Len(t, all, 1)
	return all[0]
}

func (b bundle) show(t testing.TB, key string) outbox.ParkedDetails {
	t.Helper()
	d, err := outbox.ShowParked(t.Context(), b.pool, "", events, key)
	require.NoError(t, err)
	return d
}

const ola, why = "operator:ola", "limit raised, DV-412"

func TestParkedKeyIsListedAndShownWithoutItsPayload(t *testing.T) {
	t.Parallel()
	b := operators(t)
	none, err := outbox.ListParked(t.Context(), b.pool, "", outbox.ParkedFilter{})
	require.NoError(t, err)
	require.Empty(t, none)

	b.enqueue(t, "a", 1, 2, 3, 4)
	b.enqueue(t, "b", 1)
	id := b.park(t, "a", 2)
	p := b.parked(t)
	require.Equal(t, outbox.ParkedHeld, p.State)
	require.Equal(t, []string{events, "a", id}, []string{p.Stream, p.Key, p.ID})
	require.Contains(t, p.Cause, "10054")

	d := b.show(t, "a")
	require.Equal(t, p, d.Parked)
	require.EqualValues(t, 3, d.Held, "the head and the two behind it")
	require.False(t, d.Capped)
	require.False(t, d.Missing)
	require.WithinDuration(t, time.Now(), d.CreatedAt, time.Minute)
	require.Contains(t, d.Headers, "Nats-Msg-Id: "+id)
	require.Empty(t, d.Decisions)
	data, err := outbox.ParkedEnvelope(t.Context(), b.pool, "", p)
	require.NoError(t, err)
	require.Contains(t, string(data), `"n":2`)
	require.Len(t, data, d.Size)
}

func TestListParkedSelects(t *testing.T) {
	t.Parallel()
	b := operators(t)
	ids := map[string]string{}
	for _, key := range []string{"a", "b", "c"} {
		b.enqueue(t, key, 1)
		ids[key] = b.park(t, key, 1)
	}
	_, err := outbox.ReleaseParked(t.Context(), b.pool, "", events, "b", ola, why)
	require.NoError(t, err)
	for want, filter := range map[string]outbox.ParkedFilter{
		"a b c": {}, "a": {ID: ids["a"]}, "c": {Key: "c", Stream: events}, "b": {State: outbox.ParkedReleased},
		"a c": {State: outbox.ParkedHeld}, "a b": {Limit: 2}, "": {Stream: "DV_NETT_CMD"},
	} {
		all, err := outbox.ListParked(t.Context(), b.pool, "", filter)
		require.NoError(t, err)
		var keys []string
		for _, p := range all {
			keys = append(keys, p.Key)
		}
		require.Equal(t, want, strings.Join(keys, " "))
	}
}

// The head may be gone by hand; what is left must still be released or discarded.
func TestShowParkedSaysThatTheHeadIsGone(t *testing.T) {
	t.Parallel()
	b := operators(t)
	b.enqueue(t, "a", 1, 2)
	b.park(t, "a", 1)
	_, err := b.pool.Exec(t.Context(), "delete from messaging.outbox_events where seq = (select seq from messaging.outbox_parked)")
	require.NoError(t, err)
	d := b.show(t, "a")
	require.True(t, d.Missing)
	require.EqualValues(t, 1, d.Held)
	_, err = outbox.ParkedEnvelope(t.Context(), b.pool, "", d.Parked)
	require.ErrorContains(t, err, "not in outbox_events any more")
}

func TestReleaseIsRecordedAndDoneOnce(t *testing.T) {
	t.Parallel()
	b := operators(t)
	b.enqueue(t, "a", 1, 2)
	id := b.park(t, "a", 1)
	p, err := outbox.ReleaseParked(t.Context(), b.pool, "", events, "a", ola, why)
	require.NoError(t, err)
	require.Equal(t, b.parked(t), p)
	require.Equal(t, outbox.ParkedReleased, p.State)
	require.Equal(t, []string{ola, why}, []string{p.ReleasedBy, p.Reason})

	_, err = outbox.ReleaseParked(t.Context(), b.pool, "", events, "a", "operator:kari", "me too")
	e, ok := errors.AsType[*outbox.ParkedError](err)
	require.True(t, ok, err)
	require.Equal(t, p, e.Parked)
	require.ErrorContains(t, err, "released by operator:ola")

	// The head fails again: the key is held again, and the history tells.
	require.Equal(t, id, b.park(t, "a", 1))
	require.Equal(t, outbox.ParkedHeld, b.parked(t).State)
	history := b.show(t, "a").Decisions
	require.Len(t, history, 1)
	require.Equal(t, outbox.Decision{At: history[0].At, Act: "release", ID: id, Seq: p.Seq, Cause: p.Cause, By: ola, Reason: why}, history[0])

	_, err = outbox.ReleaseParked(t.Context(), b.pool, "", events, "b", ola, why)
	require.ErrorIs(t, err, outbox.ErrNotParked)
	_, err = outbox.ShowParked(t.Context(), b.pool, "", "DV_NETT_CMD", "a")
	require.ErrorIs(t, err, outbox.ErrNotParked)
}

func TestAllKeysOfAStreamAreReleasedAtOnce(t *testing.T) {
	t.Parallel()
	b := operators(t)
	for _, key := range []string{"a", "b", "c"} {
		b.enqueue(t, key, 1)
		b.park(t, key, 1)
	}
	_, err := b.pool.Exec(t.Context(), `insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
		values ('DV_NETT_CMD', 'a', 1, gen_random_uuid(), 's', 'c')`)
	require.NoError(t, err)
	_, err = outbox.ReleaseParked(t.Context(), b.pool, "", events, "b", "operator:kari", "only b")
	require.NoError(t, err)

	n, err := outbox.ReleaseAllParked(t.Context(), b.pool, "", events, ola, why)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	held, err := outbox.ListParked(t.Context(), b.pool, "", outbox.ParkedFilter{State: outbox.ParkedHeld})
	require.NoError(t, err)
	require.Len(t, held, 1, "keys of another stream stay held")
	require.Equal(t, "operator:kari", b.show(t, "b").ReleasedBy)
	require.Equal(t, ola, b.show(t, "c").Decisions[0].By)
	_, err = outbox.ReleaseAllParked(t.Context(), b.pool, "", events, ola, why)
	require.ErrorIs(t, err, outbox.ErrNotParked)
}

func TestDiscardGivesUpTheHeadAndLetsTheKeyGoOn(t *testing.T) {
	t.Parallel()
	b := operators(t)
	b.enqueue(t, "a", 1, 2, 3)
	id := b.park(t, "a", 1)
	got, err := outbox.DiscardParked(t.Context(), b.pool, "", id, ola, "nobody needs it")
	require.NoError(t, err)
	p := b.parked(t)
	require.Equal(t, outbox.ParkedReleased, p.State)
	require.Equal(t, outbox.Discarded{
		Stream: events, Key: "a", ID: id, Seq: p.Seq, Subject: p.Subject, Cause: p.Cause,
		DiscardedAt: p.ReleasedAt, By: ola, Reason: "nobody needs it",
	}, got)
	for stream, want := range map[string][]outbox.Discarded{"": {got}, events: {got}, "DV_NETT_CMD": {}} {
		all, err := outbox.ListDiscarded(t.Context(), b.pool, "", stream, 0)
		require.NoError(t, err)
		require.Equal(t, want, all)
	}
	d := b.show(t, "a")
	require.EqualValues(t, 2, d.Held, "the discarded one does not wait any more")
	require.Equal(t, "discard", d.Decisions[0].Act)

	// Twice, and after the relay has carried it out.
	_, err = outbox.DiscardParked(t.Context(), b.pool, "", id, "operator:kari", "again")
	_, ok := errors.AsType[*outbox.ParkedError](err)
	require.True(t, ok, err)
	_, err = b.pool.Exec(t.Context(), "delete from messaging.outbox_parked")
	require.NoError(t, err)
	_, err = outbox.DiscardParked(t.Context(), b.pool, "", id, "operator:kari", "again")
	require.ErrorIs(t, err, outbox.ErrHeadChanged)
	require.ErrorContains(t, err, "operator:ola discarded it")
}

// Who looked at one message must not discard another that took its place.
func TestDiscardOfAHeadThatChangedIsRefused(t *testing.T) {
	t.Parallel()
	b := operators(t)
	b.enqueue(t, "a", 1, 2)
	before := b.park(t, "a", 1)
	now := b.park(t, "a", 2) // the first one was stored meanwhile
	_, err := outbox.DiscardParked(t.Context(), b.pool, "", before, ola, why)
	require.ErrorIs(t, err, outbox.ErrHeadChanged)
	require.Equal(t, outbox.ParkedHeld, b.parked(t).State)

	// Also where it changes between the search for the row and its lock.
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "update messaging.outbox_parked set id = $1, seq = 1", before)
	require.NoError(t, err)
	result := make(chan error, 1)
	go func() {
		_, err := outbox.DiscardParked(t.Context(), b.pool, "", now, ola, why)
		result <- err
	}()
	requireWaiting(t, b.pool, 1)
	require.NoError(t, tx.Commit(t.Context()))
	require.ErrorIs(t, <-result, outbox.ErrHeadChanged)
	gone, err := outbox.ListDiscarded(t.Context(), b.pool, "", "", 0)
	require.NoError(t, err)
	require.Empty(t, gone)
}

// requireWaiting waits until so many backends wait for a lock.
func requireWaiting(t *testing.T, pool *pgxpool.Pool, want int) {
	t.Helper()
	require.Eventually(t, func() bool {
		var n int
		err := pool.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").Scan(&n)
		return err == nil && n >= want
	}, 20*time.Second, time.Millisecond, "nobody waits for a lock")
}

// Two operators act on one key at the same moment: one of them does, and the
// other is told who did. Never both, for a released head may be on its way.
func TestOfTwoOperatorsOneDecides(t *testing.T) {
	t.Parallel()
	b := operators(t)
	b.enqueue(t, "a", 1, 2)
	id := b.park(t, "a", 1)
	acts := []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := outbox.ReleaseParked(ctx, b.pool, "", events, "a", "operator:1", why)
			return err
		},
		func(ctx context.Context) error {
			_, err := outbox.DiscardParked(ctx, b.pool, "", id, "operator:2", why)
			return err
		},
		func(ctx context.Context) error {
			_, err := outbox.ReleaseAllParked(ctx, b.pool, "", events, "operator:3", why)
			return err
		},
	}
	for round := range 20 {
		// A lock makes sure that all of them have found the key held.
		tx, err := b.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "select from messaging.outbox_parked for update")
		require.NoError(t, err)
		results := make([]error, len(acts))
		var wg sync.WaitGroup
		for i, act := range acts {
			wg.Go(func() { results[i] = act(t.Context()) })
		}
		requireWaiting(t, b.pool, len(acts))
		require.NoError(t, tx.Commit(t.Context()))
		wg.Wait()

		won := 0
		for i, err := range results {
			_, refused := errors.AsType[*outbox.ParkedError](err)
			switch {
			case err == nil:
				won++
				require.Equal(t, []string{"operator:1", "operator:2", "operator:3"}[i], b.parked(t).ReleasedBy)
			default:
				require.True(t, refused || errors.Is(err, outbox.ErrNotParked), err)
			}
		}
		require.Equal(t, 1, won)
		gone, err := outbox.ListDiscarded(t.Context(), b.pool, "", "", 0)
		require.NoError(t, err)
		require.Equal(t, results[1] == nil, len(gone) == 1)
		require.Len(t, b.show(t, "a").Decisions, min(round+1, 20))

		_, err = b.pool.Exec(t.Context(), "delete from messaging.outbox_discarded")
		require.NoError(t, err)
		b.park(t, "a", 1)
	}
}

// A number may be given out again after the sequence was set back. What was
// given up under it says nothing of the message that has it now.
func TestDiscardTakesTheNumberOfAMessageThatIsLongGone(t *testing.T) {
	t.Parallel()
	b := operators(t)
	b.enqueue(t, "a", 1)
	old := b.park(t, "a", 1)
	_, err := outbox.DiscardParked(t.Context(), b.pool, "", old, ola, why)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), "truncate messaging.outbox_events restart identity")
	require.NoError(t, err)
	b.enqueue(t, "a", 2)
	now := b.park(t, "a", 1)
	require.NotEqual(t, old, now)
	require.EqualValues(t, 1, b.show(t, "a").Held)
	_, err = outbox.DiscardParked(t.Context(), b.pool, "", now, ola, why)
	require.NoError(t, err)
	gone, err := outbox.ListDiscarded(t.Context(), b.pool, "", "", 0)
	require.NoError(t, err)
	require.Len(t, gone, 1)
	require.Equal(t, now, gone[0].ID)
}

// A decision that a crash takes back after the relay acted on it would turn the
// order of a key around.
func TestDecisionsAreDurableWhateverTheRolesDefaultIs(t *testing.T) {
	t.Parallel()
	b := operators(t)
	b.enqueue(t, "a", 1)
	id := b.park(t, "a", 1)
	_, err := b.pool.Exec(t.Context(), `
create table seen (level text);
create function note() returns trigger language plpgsql as $$ begin insert into seen values (current_setting('synchronous_commit')); return null; end $$;
create constraint trigger watch after update on messaging.outbox_parked deferrable initially deferred for each row execute function note()`)
	require.NoError(t, err)
	lazy := b.pool.Config()
	lazy.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
	pool, err := pgxpool.NewWithConfig(t.Context(), lazy)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = outbox.DiscardParked(t.Context(), pool, "", id, ola, why)
	require.NoError(t, err)
	b.park(t, "a", 1) // the default of the test's own pool
	_, err = outbox.ReleaseAllParked(t.Context(), pool, "", events, ola, why)
	require.NoError(t, err)
	rows, err := b.pool.Query(t.Context(), "select distinct level from seen")
	require.NoError(t, err)
	levels, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.NotContains(t, levels, "off")
}

func TestOperatorsFunctionsReportAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, listErr := outbox.ListParked(ctx, nil, "No Schema", outbox.ParkedFilter{Limit: 10_001, State: "odd", ID: "7"})
	_, showErr := outbox.ShowParked(ctx, nil, "", " ", "")
	_, dataErr := outbox.ParkedEnvelope(ctx, nil, "No Schema", outbox.Parked{})
	_, releaseErr := outbox.ReleaseParked(ctx, nil, "No Schema", "", "", "", " ")
	_, allErr := outbox.ReleaseAllParked(ctx, nil, "No Schema", "", "", "")
	_, discardErr := outbox.DiscardParked(ctx, nil, "No Schema", "", "", "")
	_, discardedErr := outbox.ListDiscarded(ctx, nil, "No Schema", "", -1)
	for _, c := range []struct {
		err   error
		wants []string
	}{
		{listErr, []string{"schema", "10001", `"odd"`, `"7" is no message id`}},
		{showErr, []string{"stream is empty", "key is empty"}},
		{dataErr, []string{"schema", "no message id"}},
		{releaseErr, []string{"schema", "stream is empty", "key is empty", "by is empty; say who", "reason is empty; say why"}},
		{allErr, []string{"schema", "stream is empty", "by is empty", "reason is empty"}},
		{discardErr, []string{"schema", "id is empty", "by is empty", "reason is empty", "no message id"}},
		{discardedErr, []string{"schema", "-1 is out of range"}},
	} {
		for _, want := range c.wants {
			require.ErrorContains(t, c.err, want)
		}
	}
	_, err := outbox.ListParked(ctx, dvtest.EmptyPostgres(t), "", outbox.ParkedFilter{})
	require.ErrorIs(t, err, outbox.ErrNotMigrated)
}
