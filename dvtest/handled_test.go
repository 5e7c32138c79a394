package dvtest_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/migrate"
	"codeberg.org/dataverket/messaging/subject"
)

const (
	messageID = "01936f2e-0000-7222-8333-444455556666"
	letterID  = "l0123456789abcdef0123456789abcdef01234567"
	shortly   = 30 * time.Millisecond
)

// record stores that a message was handled, or died where letter is not "".
func record(t testing.TB, pool *pgxpool.Pool, consumer, letter string) {
	t.Helper()
	require.NoError(t, handle(t.Context(), pool, consumer))
	_, err := pool.Exec(t.Context(), `update messaging.inbox_messages set letter_id = nullif($2, '') where consumer = $1`, consumer, letter)
	require.NoError(t, err)
}

// handle stores that the message was handled.
func handle(ctx context.Context, pool *pgxpool.Pool, consumer string) error {
	in, err := inbox.New(pool, consumer, inbox.Config{})
	if err != nil {
		return err
	}
	return in.Once(ctx, inbox.Message{Source: "maskin", ID: messageID}, func(context.Context, pgx.Tx) error { return nil })
}

func requireHandled(tb testing.TB, pool *pgxpool.Pool, opts ...dvtest.Option) {
	tb.Helper()
	dvtest.RequireHandledOnce(tb, pool, "node_registry", subject.Maskin, messageID, opts...)
}

func TestHandledMessageIsWaitedFor(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	watched := make(chan struct{})
	stored := make(chan error, 1)
	go func() {
		<-watched
		stored <- handle(t.Context(), pool, "node_registry")
	}()
	said := failure(t, func(tb testing.TB) { requireHandled(tb, pool, dvtest.Within(0)) })
	requireSays(t, said, "not handled by inbox node_registry: message "+messageID+" of maskin", "messaging.inbox_messages is empty", "inbox.On")
	close(watched)
	requireHandled(t, pool)
	require.NoError(t, <-stored)
	requireHandled(t, pool, dvtest.Within(0)) // one look is enough now
}

func TestDeadMessageFailsWithItsLetter(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	record(t, pool, "node_registry", letterID)
	said := failure(t, func(tb testing.TB) { requireHandled(tb, pool, dvtest.Within(shortly)) })
	requireSays(t, said, "it is dead letter "+letterID, "dvtest.RequireDeadLettered")
}

// A replay revives the row; an assertion that failed at the first sight of a
// dead one would make every test of a replay a race.
func TestReplayedMessageIsWaitedFor(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	route, m := RegisterNode(t, pool), newMessage(t)
	d := &envelope.Delivery{Envelope: m.Envelope, Subject: m.Subject, Header: m.Header()}
	require.NoError(t, route.MarkDead(t.Context(), d, letterID))
	replayed, before := make(chan error, 1), pool.Stat().AcquireCount()
	go func() {
		for pool.Stat().AcquireCount() < before+2 && t.Context().Err() == nil {
			runtime.Gosched() // until the assertion has seen the dead row
		}
		replay := *d
		replay.LetterID = letterID
		replayed <- route.Handle(d.Context(t.Context()), &replay)
	}()
	dvtest.RequireHandledOnce(t, pool, "node_registry", subject.Maskin, m.Envelope.ID)
	require.NoError(t, <-replayed)
}

// The name is that of the inbox; giving the durable's is the usual mistake.
func TestWrongInboxNameIsTold(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	record(t, pool, "registry", "")
	record(t, pool, "search", letterID)
	said := failure(t, func(tb testing.TB) { requireHandled(tb, pool, dvtest.Within(shortly)) })
	requireSays(t, said, "this id is there under other names:\n  inbox registry, source maskin: handled\n  inbox search, source maskin: dead letter "+letterID)
}

func TestUnknownMessageIsToldFromAnEmptyInbox(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	record(t, pool, "node_registry", "")
	said := failure(t, func(tb testing.TB) {
		dvtest.RequireHandledOnce(tb, pool, "node_registry", subject.Maskin, newMessage(t).Envelope.ID, dvtest.Within(shortly))
	})
	requireSays(t, said, "no inbox knows this id; there are:\n  inbox node_registry: 1 handled, 0 dead")
}

func TestHandledIsFoundInAnotherSchema(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{Schema: "bus"}))
	in, err := inbox.New(pool, "node_registry", inbox.Config{Schema: "bus"})
	require.NoError(t, err)
	route := inbox.On(in, ServerProvisioned, nothing)
	m := dvtest.DeliverTwice(t, route, provisioned("server-1"))
	dvtest.RequireHandledOnce(t, pool, "node_registry", subject.Maskin, m.Envelope.ID, dvtest.InSchema("bus"))

	// Tables that are not there are not waited for: the test ends long before
	// the time is up.
	began := time.Now()
	said := failure(t, func(tb testing.TB) { requireHandled(tb, pool, dvtest.Within(time.Hour)) })
	requireSays(t, said, "the inbox cannot be read", `not in schema "messaging"`)
	require.Less(t, time.Since(began), eventually)
}

func TestMisusedHandledSearchSaysEverythingAtOnce(t *testing.T) {
	t.Parallel()
	said := failure(t, func(tb testing.TB) { dvtest.RequireHandledOnce(tb, nil, "in", subject.Service(0), "server-1") })
	requireSays(t, said, "pool is nil", "source is no service", `message id "server-1" is no UUID`)
}

// A handler that fails leaves no row, and the assertion says so.
func TestFailedHandlerHandledNothing(t *testing.T) {
	t.Parallel()
	pool, m := newPool(t), newMessage(t)
	in, err := inbox.New(pool, "node_registry", inbox.Config{})
	require.NoError(t, err)
	broken := errors.New("broken")
	require.ErrorIs(t, dvtest.Deliver(t, inbox.On(in, ServerProvisioned, refusing(broken)), m), broken)
	failure(t, func(tb testing.TB) {
		dvtest.RequireHandledOnce(tb, pool, "node_registry", subject.Maskin, m.Envelope.ID, dvtest.Within(0))
	})
}
