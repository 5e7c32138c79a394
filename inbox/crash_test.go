package inbox_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
)

// A row of docs/DELIVERY.md.
func TestBackendKilledInTheHandlerHasNoEffectUntilTheRetry(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	err := b.in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		if err := apply(m)(ctx, tx); err != nil {
			return err
		}
		var pid int
		if err := tx.QueryRow(ctx, `select pg_backend_pid()`).Scan(&pid); err != nil {
			return err
		}
		b.count(t, `select count(pg_terminate_backend($1))`, pid)
		return nil // the handler does not notice
	})
	require.Error(t, err)
	require.NotErrorIs(t, err, envelope.ErrAlreadyProcessed)
	require.Zero(t, b.effects(t))
	require.NoError(t, b.in.Once(t.Context(), m, apply(m)))
	require.Equal(t, 1, b.effects(t))
}

// The worst moment: the commit happened and its answer was lost. Nobody on this
// side can know; the message is delivered again and the row decides.
//
// A row of docs/DELIVERY.md.
func TestLostAnswerOfACommitIsDecidedByTheRow(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMessage()
	var armed atomic.Bool
	cfg := b.pool.Config().Copy()
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &commitCutter{Conn: conn, armed: &armed}, err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	in, err := inbox.New(pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)

	err = in.Once(t.Context(), m, func(ctx context.Context, tx pgx.Tx) error {
		armed.Store(true)
		return apply(m)(ctx, tx)
	})
	require.Error(t, err)
	require.NotErrorIs(t, err, envelope.ErrAlreadyProcessed)
	require.ErrorContains(t, err, "outcome may be unknown")
	armed.Store(false)
	require.ErrorIs(t, in.Once(t.Context(), m, never(t)), envelope.ErrAlreadyProcessed)
	require.Equal(t, 1, b.effects(t))
}

// commitCutter passes a COMMIT on and keeps its answer.
type commitCutter struct {
	net.Conn
	armed *atomic.Bool
	cut   atomic.Bool
}

func (c *commitCutter) Write(p []byte) (int, error) {
	if c.armed.Load() && bytes.Contains(p, []byte("commit")) {
		c.cut.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *commitCutter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.cut.Load() { // the answer is here, so PostgreSQL has committed
		return 0, errors.Join(errors.New("cut"), c.Conn.Close())
	}
	return n, err
}
