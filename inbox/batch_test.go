package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

type received = envelope.Received[serverV1]

// applyAll is the effect of a batch: a row for each message.
func applyAll(ctx context.Context, tx pgx.Tx, all []received) error {
	ids := make([]string, len(all))
	for i, m := range all {
		ids[i] = m.Envelope.ID
	}
	_, err := tx.Exec(ctx, `insert into effect (message) select unnest($1::text[])`, ids)
	return err
}

// together delivers all at the same time and returns their verdicts. Where the
// batch is of as many, the test decides what is in it.
func together(t *testing.T, route envelope.Route, all ...*envelope.Delivery) []error {
	t.Helper()
	errs := make([]error, len(all))
	var group sync.WaitGroup
	for i, d := range all {
		group.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					errs[i] = fmt.Errorf("panic: %v", v)
				}
			}()
			errs[i] = route.Handle(d.Context(t.Context()), d)
		})
	}
	group.Wait()
	return errs
}

// deliveries are fresh messages, numbered from 1 in the stream.
func deliveries(n int) []*envelope.Delivery {
	all := make([]*envelope.Delivery, n)
	for i := range all {
		all[i] = delivery(madeAgo(0), `{"hostname":"h1"}`)
		all[i].Stream, all[i].Sequence = "DV_MASKIN_EVT", uint64(i+1)
	}
	return all
}

func shuffled(all []*envelope.Delivery) []*envelope.Delivery {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func requireNone(t *testing.T, errs []error) {
	t.Helper()
	require.NoError(t, errors.Join(errs...))
}

func quiet(t *testing.T, b *bundle) *inbox.Inbox {
	t.Helper()
	in, err := inbox.New(b.pool, "plattform__servers", inbox.Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return in
}

func TestBatchIsOneTransactionInTheOrderOfTheStream(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 40
	calls := 0
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(n), func(ctx context.Context, tx pgx.Tx, all []received) error {
		calls++
		require.Len(t, all, n)
		for i, m := range all {
			require.EqualValues(t, i+1, m.Sequence)
			require.Equal(t, "h1", m.Data.Hostname)
		}
		return applyAll(ctx, tx, all)
	})
	require.Equal(t, provisioned.Name(), route.Type)
	require.Equal(t, provisioned.Version(), route.Version)
	requireNone(t, together(t, route, shuffled(deliveries(n))...))
	require.Equal(t, 1, calls)
	require.Equal(t, 1, b.count(t, `select count(distinct xmin::text) from effect`))
	require.Equal(t, 1, b.count(t, `select count(distinct xmin::text) from messaging.inbox_messages`))
	require.Equal(t, n, b.effects(t))
	require.Equal(t, n, b.rows(t))
}

func TestBatchLeavesOutWhatWasHandled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(4)
	requireNone(t, together(t, b.route(), all[1], all[3]))
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(4), func(ctx context.Context, tx pgx.Tx, got []received) error {
		require.Len(t, got, 2)
		return applyAll(ctx, tx, got)
	})
	errs := together(t, route, all...)
	requireNone(t, []error{errs[0], errs[2]})
	require.ErrorIs(t, errs[1], envelope.ErrAlreadyProcessed)
	require.ErrorIs(t, errs[3], envelope.ErrAlreadyProcessed)
	require.Equal(t, 4, b.effects(t))

	for _, err := range together(t, inbox.OnBatch(b.in, provisioned, inbox.FullBatch(4), func(context.Context, pgx.Tx, []received) error {
		t.Error("the handler ran")
		return nil
	}), all...) {
		require.ErrorIs(t, err, envelope.ErrAlreadyProcessed)
	}
}

// Two copies at the same time: of a stream and its copy at another site, or
// published twice outside the duplicate window.
func TestTwoCopiesInABatchHaveOneEffect(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(3)
	again := *all[1]
	again.Stream = "DV_MASKIN_EVT_FROM_OSLO"
	route := inbox.OnBatch(b.in, provisioned, inbox.Batch{Size: 3}, applyAll)
	errs := together(t, route, all[0], all[1], all[2], &again)
	requireNone(t, []error{errs[0], errs[2]})
	require.NotEqual(t, errs[1] == nil, errs[3] == nil, "one is handled, the other a duplicate")
	require.ErrorIs(t, errors.Join(errs[1], errs[3]), envelope.ErrAlreadyProcessed)
	require.Equal(t, 3, b.effects(t))
}

// failingOn fails, in whatever way, when one message is in its batch.
func failingOn(poison *envelope.Delivery, fail func(context.Context, pgx.Tx) error) func(context.Context, pgx.Tx, []received) error {
	return func(ctx context.Context, tx pgx.Tx, all []received) error {
		if err := applyAll(ctx, tx, all); err != nil {
			return err
		}
		for _, m := range all {
			if m.Envelope.ID == poison.Envelope.ID {
				return fail(ctx, tx)
			}
		}
		return nil
	}
}

// A row of docs/DELIVERY.md.
func TestPoisonInABatchFailsAlone(t *testing.T) {
	t.Parallel()
	broken := errors.New("no such rack")
	for name, c := range map[string]struct {
		fail func(context.Context, pgx.Tx) error
		want func(*testing.T, error)
	}{
		"permanent": {
			func(context.Context, pgx.Tx) error { return envelope.Permanent(broken) },
			func(t *testing.T, err error) { require.True(t, envelope.IsPermanent(err)) },
		},
		"error": {
			func(context.Context, pgx.Tx) error { return broken },
			func(t *testing.T, err error) { require.Equal(t, broken, err) },
		},
		"panic": {
			func(context.Context, pgx.Tx) error { panic("rack") },
			func(t *testing.T, err error) { require.EqualError(t, err, "panic: rack") },
		},
		"sql error": {
			func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, `select 1/0`); return err },
			func(t *testing.T, err error) { require.ErrorContains(t, err, "division by zero") },
		},
		"swallowed sql error": {
			func(ctx context.Context, tx pgx.Tx) error { _, _ = tx.Exec(ctx, `select 1/0`); return nil },
			func(t *testing.T, err error) { require.ErrorIs(t, err, pgx.ErrTxCommitRollback) },
		},
		"at the commit": {
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `create table parent (id int primary key); create table child (id int references parent deferrable initially deferred); insert into child values (1)`)
				return err
			},
			func(t *testing.T, err error) { require.ErrorContains(t, err, "foreign key") },
		},
		"connection lost": {
			func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `select pg_terminate_backend(pg_backend_pid())`)
				return err
			},
			func(t *testing.T, err error) { require.ErrorContains(t, err, "terminating connection") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.in = quiet(t, b)
			all := deliveries(6)
			errs := together(t, inbox.OnBatch(b.in, provisioned, inbox.FullBatch(6), failingOn(all[2], c.fail)), all...)
			c.want(t, errs[2])
			errs[2] = nil
			requireNone(t, errs)
			require.Equal(t, 5, b.effects(t))
			require.Equal(t, 5, b.rows(t))
			require.NoError(t, b.route().Handle(t.Context(), all[2]), "and can be handled later")
		})
	}
}

// A test that fails inside a handler ends its goroutine, which leads the batch.
func TestHandlerThatEndsItsGoroutineStopsNobodyElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(5)
	errs := together(t, inbox.OnBatch(b.in, provisioned, inbox.FullBatch(5), func(ctx context.Context, tx pgx.Tx, got []received) error {
		if len(got) > 1 {
			runtime.Goexit()
		}
		return applyAll(ctx, tx, got)
	}), all...)
	requireNone(t, errs)
	require.Equal(t, 4, b.effects(t), "all but that of the goroutine that is gone")
	require.Zero(t, b.pool.Stat().AcquiredConns())
}

// A handler that can never take two messages at once works, slowly; the operator
// has to be told.
func TestBatchThatFailsIsLogged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var log strings.Builder
	in, err := inbox.New(b.pool, "plattform__servers", inbox.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	route := inbox.OnBatch(in, provisioned, inbox.FullBatch(2), func(_ context.Context, _ pgx.Tx, got []received) error {
		if len(got) > 1 {
			panic("only one")
		}
		return nil
	})
	requireNone(t, together(t, route, deliveries(2)...))
	require.Contains(t, log.String(), "a batch failed")
	require.Contains(t, log.String(), "panic: only one")
	require.Contains(t, log.String(), "messages=2")
}

// What once failed, or ended its process, must not take others with it.
func TestWhatCameBeforeIsHandledAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(2), func(ctx context.Context, tx pgx.Tx, got []received) error {
		require.Len(t, got, 1)
		return applyAll(ctx, tx, got)
	})
	all := deliveries(8)
	for i, d := range all {
		d.Attempt = 2
		if i < 3 { // nothing was written of an attempt that ended its process
			d.Attempt, d.Redelivered = 1, true
		}
		if i > 4 {
			require.NoError(t, route.MarkDead(t.Context(), d, letter))
			d.Attempt, d.LetterID = 1, letter
		}
	}
	requireNone(t, together(t, route, all...))
	require.Equal(t, 8, b.effects(t))
}

func TestCancelledMessageLeavesTheBatchToTheOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var group sync.WaitGroup
	defer group.Wait()
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(2), applyAll)
	require.ErrorIs(t, route.Handle(ctx, all[2]), context.Canceled, "the first of its batch")
	ctx, cancel = context.WithCancel(t.Context())
	gone := make(chan error, 1)
	group.Go(func() { gone <- route.Handle(ctx, all[2]) })
	cancel()
	requireNone(t, together(t, route, all[:2]...))
	if err := <-gone; err != nil { // it may have been in the batch before
		require.ErrorIs(t, err, context.Canceled)
	}
	require.GreaterOrEqual(t, b.effects(t), 2)
}

// When a shutdown cancels all messages, the batch ends with them and all tell so;
// when one is cancelled its effect is committed with the others'.
func TestBatchEndsWhenAllItsMessagesDo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.in = quiet(t, b)
	all := deliveries(3)
	ctx, stop := context.WithCancel(t.Context())
	one, cancel := context.WithCancel(ctx)
	defer cancel()
	entered := make(chan struct{}, 4)
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(3), func(ctx context.Context, tx pgx.Tx, _ []received) error {
		entered <- struct{}{}
		_, err := tx.Exec(ctx, `select pg_sleep(60)`)
		return err
	})
	errs := make(chan error, 3)
	for i, d := range all {
		ctx := ctx
		if i == 0 {
			ctx = one
		}
		go func() { errs <- route.Handle(ctx, d) }()
	}
	<-entered
	cancel()
	require.Never(t, func() bool { return len(errs) > 0 }, 50*time.Millisecond, 5*time.Millisecond)
	stop()
	for range all {
		require.ErrorIs(t, <-errs, context.Canceled)
	}
	require.Zero(t, b.rows(t))
}

// One message of which a copy is being handled elsewhere must not hold up the
// others until that ends.
func TestBatchDoesNotWaitForACopyElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.in = quiet(t, b)
	all := deliveries(4)
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(4), applyAll)
	last := make(chan error, 1)
	require.NoError(t, b.route().Handle(t.Context(), all[0]))
	m := inbox.Message{Source: "maskin", ID: all[3].Envelope.ID}
	require.NoError(t, b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		go func() { last <- route.Handle(t.Context(), all[3]) }()
		errs := together(t, route, all[:3]...)
		require.ErrorIs(t, errs[0], envelope.ErrAlreadyProcessed)
		requireNone(t, errs[1:])
		require.Empty(t, last)
		return apply(m)(ctx, tx)
	}))
	require.ErrorIs(t, <-last, envelope.ErrAlreadyProcessed)
	require.Equal(t, 4, b.effects(t))
}

// Little patience is for the claim alone.
func TestBatchHandlerHasThePatienceOfItsRole(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `alter database `+b.pool.Config().ConnConfig.Database+` set lock_timeout = '1234ms'`)
	b.exec(t, `alter database `+b.pool.Config().ConnConfig.Database+` set synchronous_commit = 'off'`)
	b.pool.Reset()
	var timeout, commit string
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(2), func(ctx context.Context, tx pgx.Tx, _ []received) error {
		return tx.QueryRow(ctx, `select current_setting('lock_timeout'), current_setting('synchronous_commit')`).Scan(&timeout, &commit)
	})
	requireNone(t, together(t, route, deliveries(2)...))
	require.Equal(t, "1234ms", timeout)
	require.Equal(t, "on", commit)
}

// What a batch handler sends must be correlated with one message, and not by
// chance with the first.
func TestBatchHasNoOriginButItsMessagesHave(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := deliveries(3)
	all[2].Attempt = 2 // alone it is the same
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(2), func(ctx context.Context, _ pgx.Tx, got []received) error {
		_, carries := envelope.OriginFrom(ctx)
		require.False(t, carries)
		for _, m := range got {
			o, _ := envelope.OriginFrom(m.Context(ctx))
			require.Equal(t, m.Envelope.ID, o.CausationID)
		}
		return nil
	})
	requireNone(t, together(t, route, all...))
}

func TestLoneMessageDoesNotWaitForOthersForEver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	route := inbox.OnBatch(b.in, provisioned, inbox.Batch{Size: 1 << 30, Wait: time.Hour}, applyAll)
	require.NoError(t, route.Handle(t.Context(), deliveries(1)[0]), "bounds hold for what is asked for")
	require.Equal(t, 1, b.effects(t))
}

// A commit waits for a disk; the next batch need not.
func TestNextBatchBeginsWhileOneCommits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `create function hold() returns trigger language plpgsql as 'begin perform pg_advisory_xact_lock(7); return null; end'`)
	b.exec(t, `create table slow (id int)`)
	b.exec(t, `create constraint trigger hold after insert on slow deferrable initially deferred for each row execute function hold()`)
	all := deliveries(4)
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(2), func(ctx context.Context, tx pgx.Tx, got []received) error {
		if got[0].Sequence == all[0].Sequence {
			if _, err := tx.Exec(ctx, `insert into slow values (1)`); err != nil {
				return err
			}
		}
		return applyAll(ctx, tx, got)
	})
	first := make(chan []error, 1)
	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `select pg_advisory_xact_lock(7)`); err != nil {
			return err
		}
		go func() { first <- together(t, route, all[:2]...) }()
		require.Eventually(t, func() bool {
			return b.count(t, `select count(*) from pg_locks where locktype = 'advisory' and not granted`) > 0
		}, soon, time.Millisecond)
		began := time.Now()
		requireNone(t, together(t, route, all[2:]...))
		require.Empty(t, first)
		require.Less(t, time.Since(began), 8*time.Second, "a commit is given up after 10 s, and then anybody may begin")
		return nil
	}))
	requireNone(t, <-first)
	require.Equal(t, 4, b.effects(t))
}

// When every worker of a consumer waits in the batch, nobody else can come, and to
// wait for growth would only cost time. Size is larger than that.
func TestBatchBeginsWhenNobodyElseCanCome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const workers, rounds, quiet = 6, 100, 100 * time.Millisecond
	var batches atomic.Int64
	route := inbox.OnBatch(b.in, provisioned, inbox.Batch{Wait: 10 * quiet}, func(ctx context.Context, tx pgx.Tx, all []received) error {
		batches.Add(1)
		return applyAll(ctx, tx, all)
	})
	var group sync.WaitGroup
	began := time.Now()
	for range workers {
		group.Go(func() {
			for _, d := range deliveries(rounds) {
				if err := route.Handle(t.Context(), d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	require.Less(t, time.Since(began), rounds*quiet/2)
	require.Less(t, batches.Load(), int64(workers*rounds/2), "they come together all the same")
	require.Equal(t, workers*rounds, b.effects(t))

	began = time.Now()
	for _, d := range deliveries(40) {
		require.NoError(t, route.Handle(t.Context(), d))
	}
	require.Less(t, time.Since(began), 20*quiet, "and then alone again")
}

func TestBatchRouteRefusesWhatASingleOneRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Nil(t, inbox.OnBatch[serverV1](nil, provisioned, inbox.Batch{}, applyAll).Handle)
	require.Nil(t, inbox.OnBatch[serverV1](b.in, provisioned, inbox.Batch{}, nil).Handle)
	route := inbox.OnBatch(b.in, provisioned, inbox.Batch{}, applyAll)
	err := route.Handle(t.Context(), delivery(newMessage(), `{"hostname":1}`))
	require.True(t, envelope.IsPermanent(err))
	require.ErrorIs(t, err, envelope.ErrMalformed)
	err = route.Handle(t.Context(), delivery(inbox.Message{Source: "maskin", ID: "42"}, `{}`))
	require.True(t, envelope.IsPermanent(err))
}

// Many messages in batches of any size, several copies each, in two processes,
// with handlers that fail at times: every message has its effect once.
func TestEveryMessageOfABatchHasItsEffectOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.in = quiet(t, b)
	const messages, copies = 120, 3
	var calls atomic.Int64
	handler := func(ctx context.Context, tx pgx.Tx, got []received) error {
		err := applyAll(ctx, tx, got)
		if n := calls.Add(1); n%4 == 1 && n < messages {
			err = errors.Join(err, errors.New("broken"))
		}
		return err
	}
	routes := []envelope.Route{
		inbox.OnBatch(b.in, provisioned, inbox.Batch{Size: 20}, handler),
		inbox.OnBatch(quiet(t, b), provisioned, inbox.Batch{Size: 7, Wait: time.Millisecond}, handler),
	}
	var group sync.WaitGroup
	for i, d := range deliveries(messages) {
		for c := range copies {
			route := routes[(i+c)%len(routes)]
			group.Go(func() {
				for {
					err := route.Handle(t.Context(), d)
					if err == nil || errors.Is(err, envelope.ErrAlreadyProcessed) || t.Context().Err() != nil {
						return
					}
				}
			})
		}
	}
	group.Wait()
	require.Equal(t, messages, b.effects(t))
	require.Equal(t, messages, b.count(t, `select count(distinct right(message, 36)) from effect`))
	require.Equal(t, messages, b.rows(t))
}

func ExampleOnBatch() {
	var in *inbox.Inbox // inbox.New(pool, "node_registry", inbox.Config{})
	_ = inbox.OnBatch(in, provisioned, inbox.Batch{}, func(ctx context.Context, tx pgx.Tx, all []envelope.Received[serverV1]) error {
		ids, hosts := make([]string, len(all)), make([]string, len(all))
		for i, m := range all {
			ids[i], hosts[i] = m.Envelope.Subject, m.Data.Hostname
		}
		_, err := tx.Exec(ctx, `insert into node (id, host) select * from unnest($1::text[], $2::text[])`, ids, hosts)
		return err
	})
}
