package inbox_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// A row of docs/DELIVERY.md.
func TestDuplicateHasNoEffect(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	for range 3 {
		require.ErrorIs(t, b.in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
	}
	require.Equal(t, 1, b.effects(t))
}

// The two spellings of a UUID are one message: the column's type says so, and a
// foreign producer may write either.
func TestUpperCaseIDIsTheSameMessage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m := inbox.Message{Source: "maskin", ID: "0190a0b0-0000-7000-8000-00000000000a"}
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	m.ID = "0190A0B0-0000-7000-8000-00000000000A"
	require.ErrorIs(t, b.in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
}

func TestTwoConsumersBothHandleAMessage(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	require.NoError(t, b.inbox(t, "plattform__audit").Once(t.Context(), m, apply(m)))
	require.Equal(t, 2, b.effects(t))
}

func TestOneIDOfTwoSourcesIsTwoMessages(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	m.Source = "objekt"
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	require.Equal(t, 2, b.effects(t))
}

func TestFailureLeavesNoRowAndKeepsTheError(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	broken := errors.New("broken")
	err := b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		return errors.Join(apply(m)(ctx, tx), envelope.Permanent(broken))
	})
	require.ErrorIs(t, err, broken)
	require.True(t, envelope.IsPermanent(err), "the verdict must survive")
	require.Zero(t, b.rows(t))
	require.Zero(t, b.effects(t))
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)), "the next delivery takes over")
}

func TestPanicLeavesNoRowAndNoConnectionBehind(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	require.PanicsWithValue(t, "boom", func() {
		_ = b.in.Once(t.Context(), m, func(context.Context, pgx.Tx) error { panic("boom") })
	})
	require.Zero(t, b.rows(t))
	require.Zero(t, b.pool.Stat().AcquiredConns())
}

// The row and the effect become visible together: whoever sees the row may rely
// on the effect.
func TestHandledOnlyWithTheCommit(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	err := b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		if err := apply(m)(ctx, tx); err != nil {
			return err
		}
		require.Zero(t, b.rows(t))
		require.Zero(t, b.effects(t))
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 1, b.rows(t))
	require.Equal(t, 1, b.effects(t))
}

// second starts a copy of m while the first is inside its handler and waits
// until PostgreSQL shows that it waits.
func (b *bundle) second(t *testing.T, m inbox.Message) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- b.in.Once(t.Context(), m, apply(m)) }()
	require.Eventually(t, func() bool {
		return b.count(t, `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`) == 1
	}, 20*time.Second, time.Millisecond)
	return done
}

// A row of docs/DELIVERY.md.
func TestConcurrentCopyWaitsAndIsADuplicate(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	var copied <-chan error
	require.NoError(t, b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		copied = b.second(t, m)
		return apply(m)(ctx, tx)
	}))
	require.ErrorIs(t, <-copied, envelope.ErrAlreadyProcessed)
	require.Equal(t, 1, b.effects(t))
}

func TestConcurrentCopyTakesOverWhenTheFirstFails(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	var copied <-chan error
	require.Error(t, b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		copied = b.second(t, m)
		return errors.Join(apply(m)(ctx, tx), errors.New("broken"))
	}))
	require.NoError(t, <-copied)
	require.Equal(t, 1, b.effects(t))
}

// Many messages, each delivered several times at once to two replicas that fail
// at times: every message has its effect exactly once in the end.
func TestEveryMessageHasItsEffectOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const messages, copies = 100, 5
	var group sync.WaitGroup
	for range messages {
		m := newMessage()
		var first sync.Once
		for range copies {
			group.Go(func() { b.untilHandled(t, m, &first) })
		}
	}
	group.Wait()
	require.Equal(t, messages, b.effects(t))
	require.Equal(t, messages, b.count(t, `select count(distinct message) from effect`))
	require.Equal(t, messages, b.rows(t))
}

// untilHandled delivers m until it is handled; the first attempt of all copies
// fails after its effect.
func (b *bundle) untilHandled(t *testing.T, m inbox.Message, first *sync.Once) {
	for {
		err := b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
			err := apply(m)(ctx, tx)
			first.Do(func() { err = errors.Join(err, errors.New("broken")) })
			return err
		})
		if err == nil || errors.Is(err, envelope.ErrAlreadyProcessed) {
			return
		}
		if t.Context().Err() != nil {
			t.Error(err)
			return
		}
	}
}

// A handler that ignores an SQL error and returns nil has an aborted
// transaction, and COMMIT then rolls back without an error from PostgreSQL. An
// ack at that point would lose the message.
func TestSwallowedSQLErrorIsNoSuccess(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	err := b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		_ = apply(m)(ctx, tx)
		_, _ = tx.Exec(ctx, `select 1/0`)
		return nil
	})
	require.ErrorIs(t, err, pgx.ErrTxCommitRollback)
	require.ErrorContains(t, err, "swallowed")
	require.NotErrorIs(t, err, envelope.ErrAlreadyProcessed)
	require.Zero(t, b.rows(t))
}

func TestHandlerThatEndsTheTransactionIsTold(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	err := b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) })
	require.ErrorContains(t, err, "ended the transaction itself")
}

// A deadline that passes while the handler returns must not make the outcome of
// the commit unknown.
func TestCommitOutlivesTheContext(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, b.in.Once(ctx, m, func(ctx context.Context, tx pgx.Tx) error {
		defer cancel()
		return apply(m)(ctx, tx)
	}))
	require.Equal(t, 1, b.rows(t))
}

// The pool is smaller than the number of workers: waiting for a connection must
// end with the handler's ctx.
func TestWaitingForAConnectionEndsWithTheContext(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	for range b.pool.Config().MaxConns {
		conn, err := b.pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, b.in.Once(ctx, m, never(t)), context.DeadlineExceeded)
}

func TestCommitIsDurableWhereTheRoleSaysOtherwise(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for configured, want := range map[string]string{"off": "on", "on": "on", "local": "local"} {
		_, err := b.pool.Exec(t.Context(), `alter database `+b.pool.Config().ConnConfig.Database+` set synchronous_commit = '`+configured+`'`)
		require.NoError(t, err)
		b.pool.Reset()
		require.NoError(t, b.in.Once(t.Context(), newMessage(), func(ctx context.Context, tx pgx.Tx) error {
			var got string
			err := tx.QueryRow(ctx, `select current_setting('synchronous_commit')`).Scan(&got)
			require.Equal(t, want, got)
			return err
		}))
	}
}

func TestMissingTableNamesTheRemedy(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	err = in.Once(t.Context(), newMessage(), never(t))
	_, ok := errors.AsType[*inbox.MigrationError](err)
	require.True(t, ok, "%v", err)
	require.ErrorContains(t, err, "run migrate.Up, or dvmsg migrate up")
	require.False(t, envelope.IsPermanent(err), "the migration may come a moment later")
}

func TestMalformedMessageIsPermanent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, m := range []inbox.Message{{}, {Source: "maskin", ID: "42"}, {Source: "maskin", ID: "0190a0b00000700080000000000000aa"}} {
		require.True(t, envelope.IsPermanent(b.in.Once(t.Context(), m, never(t))), "%+v", m)
	}
	require.ErrorContains(t, b.in.Once(t.Context(), inbox.Message{}, never(t)), "Message.ID")
	require.ErrorContains(t, b.in.Once(t.Context(), inbox.Message{}, never(t)), "Message.Source")
}

// Whatever strangers send as a key is one message of its source.
func TestMessageForAnyKeyIsHandledOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, key := range []string{"request 1", "01936f2e-1111-7222-8333-444455556666", "\x00\xff", strings.Repeat("k", 1<<16)} {
		for _, source := range []string{"shop", "shop-2"} {
			m := inbox.MessageFor(source, key)
			require.NoError(t, b.in.Once(t.Context(), m, apply(m)), "%.80q", key)
			require.ErrorIs(t, b.in.Once(t.Context(), inbox.MessageFor(source, key), never(t)), envelope.ErrAlreadyProcessed)
		}
	}
	require.Equal(t, 8, b.effects(t))
	err := b.in.Once(t.Context(), inbox.MessageFor("shop", ""), never(t))
	require.True(t, envelope.IsPermanent(err))
	require.ErrorContains(t, err, "Message.ID")
}
