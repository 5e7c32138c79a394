package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// setupMessages is a broker and a database of the test's own, with a table that
// effects go to and that refuses bad ones.
func setupMessages(t *testing.T) *replicas {
	t.Helper()
	r := &replicas{bundle: setup(t), pool: dvtest.Postgres(t)}
	_, err := r.pool.Exec(t.Context(), `create table node (host text not null check (host <> 'bad'))`)
	require.NoError(t, err)
	return r
}

// insertNode is the effect of a message.
func insertNode(ctx context.Context, tx pgx.Tx, m received) error {
	_, err := tx.Exec(ctx, `insert into node values ($1)`, m.Data.Hostname)
	return err
}

// A publisher repeats messages when the stream has forgotten their ids: the copies
// are stored again, under other sequences, some while the first is unhandled.
// Single and in batches, each has one effect, and the copies are counted.
//
// A row of docs/DELIVERY.md.
func TestDuplicateBeyondTheWindowOfItsStreamHasOneEffect(t *testing.T) {
	t.Parallel()
	for name, route := range map[string]func(*inbox.Inbox) envelope.Route{
		"single": func(in *inbox.Inbox) envelope.Route { return inbox.On(in, provisioned, insertNode) },
		"batch": func(in *inbox.Inbox) envelope.Route {
			return inbox.OnBatch(in, provisioned, inbox.Batch{}, func(ctx context.Context, tx pgx.Tx, all []received) error {
				for _, m := range all {
					if err := insertNode(ctx, tx, m); err != nil {
						return err
					}
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setupMessages(t)
			stream := f.declared.Stream.Config()
			stream.Duplicates = 100 * time.Millisecond
			_, err := f.js.UpdateStream(t.Context(), stream)
			require.NoError(t, err)
			names := numbered(20)
			repeat := f.publishTwice(t, names)
			in := newInbox(t, f.pool)
			r := f.run(t, f.config(withStore(in)), route(in))
			f.settled(t)
			repeat()
			f.settled(t)
			requireOnce(t, f.pool, names)
			info, err := f.js.Stream(t.Context(), stream.Name)
			require.NoError(t, err)
			require.EqualValues(t, 3*len(names), info.CachedInfo().State.Msgs, "the stream dropped the copies: the test proves nothing")
			require.EqualValues(t, 2*len(names), r.Stats().Duplicates)
			require.EqualValues(t, len(names), r.Stats().Handled)
			require.Equal(t, len(names), rowsOf(t, f.pool, "inbox_messages"))
			require.Empty(t, f.graves.all())
		})
	}
}

// publishTwice publishes messages and, when the stream has forgotten their ids,
// once more. The function that it returns does that another time.
func (b *bundle) publishTwice(t *testing.T, names []string) (again func()) {
	t.Helper()
	var publish []func() (duplicate bool)
	for _, name := range names {
		m := message(t, name)
		publish = append(publish, func() bool {
			ack, err := b.js.PublishMsg(t.Context(), m)
			require.NoError(t, err)
			return ack.Duplicate
		})
	}
	again = func() {
		for _, p := range publish {
			require.Eventually(t, func() bool { return !p() }, soon, 10*time.Millisecond)
		}
	}
	again()
	again()
	return again
}

// One message violates a constraint of the database each time, which aborts the
// transaction of its handler. All good ones around it have their effect before its
// last attempt has ended, and it is one dead letter, with its cause.
//
// A row of docs/DELIVERY.md.
func TestPoisonAmongGoodMessagesIsOneDeadLetter(t *testing.T) {
	t.Parallel()
	f := setupMessages(t)
	in := newInbox(t, f.pool)
	names := numbered(100)
	f.publish(t, names[:50]...)
	f.publish(t, "bad")
	f.publish(t, names[50:]...)
	var starts tally
	flowed := make(chan struct{})
	r := f.run(t, f.config(withStore(in), func(c *consumer.Config) { c.MaxAttempts = 3 }), inbox.On(in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		if starts.add(m.Data.Hostname) == 3 {
			<-flowed
		}
		return insertNode(ctx, tx, m)
	}))
	require.Eventually(t, func() bool { return r.Stats().Handled == uint64(len(names)) }, soon, tick, "the good ones wait for the bad one")
	require.Empty(t, f.graves.all())
	close(flowed)
	f.settled(t)
	requireOnce(t, f.pool, names)
	letters := f.graves.all()
	require.Len(t, letters, 1)
	require.Equal(t, envelope.ClassExhausted, letters[0].Class)
	require.Equal(t, 3, letters[0].Attempts)
	var violation *pgconn.PgError
	require.ErrorAs(t, letters[0].Err, &violation)
	require.Equal(t, "23514", violation.Code)
	require.Len(t, starts.names(), len(names)+3)
	awaitReady(t, r)
}
