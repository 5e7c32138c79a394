package inbox_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/subject"
)

type serverV1 struct {
	Hostname string `json:"hostname"`
}

var provisioned = envelope.MustEvent[serverV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// bundle is a migrated database with a table that effects go to.
type bundle struct {
	pool *pgxpool.Pool
	in   *inbox.Inbox
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{pool: dvtest.Postgres(t)}
	_, err := b.pool.Exec(t.Context(), `create table effect (message text not null, at timestamptz default clock_timestamp())`)
	require.NoError(t, err)
	b.in = b.inbox(t, "plattform__servers")
	return b
}

func (b *bundle) inbox(t *testing.T, consumer string) *inbox.Inbox {
	t.Helper()
	in, err := inbox.New(b.pool, consumer, inbox.Config{})
	require.NoError(t, err)
	return in
}

// apply is the effect that the tests count.
func apply(m inbox.Message) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into effect (message) values ($1)`, m.Source+"/"+m.ID)
		return err
	}
}

// never fails the test when a handler runs that must not.
func never(t *testing.T) func(context.Context, pgx.Tx) error {
	return func(context.Context, pgx.Tx) error {
		t.Error("the handler ran")
		return nil
	}
}

func newMessage() inbox.Message {
	return inbox.Message{Source: "maskin", ID: uuid.NewString()}
}

func (b *bundle) effects(t *testing.T) int { return b.count(t, `select count(*) from effect`) }
func (b *bundle) rows(t *testing.T) int {
	return b.count(t, `select count(*) from messaging.inbox_messages`)
}

func (b *bundle) count(t *testing.T, sql string, args ...any) int {
	t.Helper()
	var n int
	require.NoError(t, b.pool.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

const letter = "l0123456789abcdef0123456789abcdef01234567"

// delivery is what the consumer would hand to a route.
func delivery(m inbox.Message, data string) *envelope.Delivery {
	return &envelope.Delivery{
		Subject: provisioned.Subject(), Durable: "plattform__from_maskin", Attempt: 1, LetterID: m.LetterID,
		Envelope: &envelope.Envelope{
			SpecVersion: envelope.SpecVersion, ID: m.ID, Type: provisioned.Name(), Source: subject.Maskin,
			Subject: "srv-1", Time: time.Now(), DataContentType: envelope.ContentTypeJSON,
			DataSchema: provisioned.Schema(), CorrelationID: "corr-1", Data: json.RawMessage(data),
		},
	}
}

// route is a route that applies the effect.
func (b *bundle) route() envelope.Route {
	return inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, m envelope.Received[serverV1]) error {
		return apply(inbox.Message{Source: m.Envelope.Source.String(), ID: m.Envelope.ID})(ctx, tx)
	})
}
