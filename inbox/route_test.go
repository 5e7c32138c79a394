package inbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/migrate"
)

func failing(err error) func(context.Context, pgx.Tx, envelope.Received[serverV1]) error {
	return func(context.Context, pgx.Tx, envelope.Received[serverV1]) error { return err }
}

func TestNewReportsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := inbox.New(nil, "Plattform", inbox.Config{Schema: "x;y"})
	for _, field := range []string{"inbox: pool", "inbox: consumer", "inbox: Config.Schema"} {
		require.ErrorContains(t, err, field)
	}
}

func TestNewDoesNoIO(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none")
	require.NoError(t, err)
	defer pool.Close()
	_, err = inbox.New(pool, "plattform__from_maskin__shard0", inbox.Config{})
	require.NoError(t, err)
}

func TestRouteHandsOverDataAndDelivery(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	var got envelope.Received[serverV1]
	route := inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, r envelope.Received[serverV1]) error {
		got = r
		return apply(m)(ctx, tx)
	})
	require.Equal(t, provisioned.Name(), route.Type)
	require.Equal(t, provisioned.Version(), route.Version)
	require.NoError(t, route.Handle(t.Context(), delivery(m, `{"hostname":"h1"}`)))
	require.Equal(t, "h1", got.Data.Hostname)
	require.Equal(t, m.ID, got.Envelope.ID)
	require.Equal(t, 1, b.effects(t))
}

// A message that can never be decoded must not cost a database connection: the
// pool here refuses every one.
func TestUndecodableDataNeedsNoDatabase(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/none")
	require.NoError(t, err)
	defer pool.Close()
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	err = inbox.On(in, provisioned, failing(nil)).Handle(t.Context(), delivery(newMessage(), `{"hostname":1}`))
	require.True(t, envelope.IsPermanent(err))
	require.ErrorIs(t, err, envelope.ErrMalformed)
}

func TestRouteWithoutHandlerIsRecognisable(t *testing.T) {
	t.Parallel()
	require.Nil(t, inbox.On[serverV1](nil, provisioned, nil).Handle)
	require.Nil(t, inbox.On[serverV1](nil, provisioned, nil).MarkDead)
}

func TestHandlerErrorIsTheVerdict(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := envelope.RetryAfter(1, errors.New("later"))
	err := inbox.On(b.in, provisioned, failing(want)).Handle(t.Context(), delivery(newMessage(), `{}`))
	require.Equal(t, want, err)
}

func TestAnotherSchemaIsUsedThroughout(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	require.NoError(t, migrate.Up(t.Context(), pool, migrate.Config{Schema: "elsewhere"}))
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{Schema: "elsewhere"})
	require.NoError(t, err)
	m := newMessage()
	route := inbox.On(in, provisioned, failing(nil))
	require.NoError(t, route.Handle(t.Context(), delivery(m, `{}`)))
	require.ErrorIs(t, route.MarkDead(t.Context(), delivery(m, `{}`), letter), envelope.ErrAlreadyProcessed)
}

func TestOnAnyAppliesAnyTypeOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	route := inbox.OnAny(b.in, func(ctx context.Context, tx pgx.Tx, d *envelope.Delivery) error {
		return apply(inbox.Message{Source: d.Envelope.Source.String(), ID: d.Envelope.ID})(ctx, tx)
	})
	dvtest.DeliverTwice(t, route, provisioned.New("srv-1", serverV1{Hostname: "h1"}))
	require.Equal(t, 1, b.effects(t))
	d := delivery(newMessage(), `{}`)
	require.NoError(t, route.MarkDead(t.Context(), d, letter))
	require.ErrorIs(t, route.Handle(t.Context(), d), envelope.ErrAlreadyProcessed)
	require.Nil(t, inbox.OnAny(nil, nil).Handle)
}
