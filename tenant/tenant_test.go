package tenant_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/tenant"
)

const rows tenant.Setting = "app.tenant_id"

// guarded is a database of one connection, whose role is held to a policy. It holds a
// row of each of two tenants.
func guarded(t *testing.T) *pgxpool.Pool {
	t.Helper()
	owner := dvtest.Postgres(t)
	role := pgx.Identifier{"role_of_" + owner.Config().ConnConfig.Database}.Sanitize()
	_, err := owner.Exec(t.Context(), `
create table node (tenant_id text not null, id text);
insert into node values ('a', 'a-1'), ('b', 'b-1');
alter table node enable row level security;
create policy tenant on node using (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
create role `+role+`;
grant all on node to `+role)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := owner.Exec(context.Background(), `drop owned by `+role+`; drop role `+role)
		require.NoError(t, err)
	})
	config := owner.Config()
	config.MaxConns = 1
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `set role `+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

type querier interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}

func seen(t *testing.T, q querier) []string {
	t.Helper()
	found, err := q.Query(t.Context(), `select id from node order by id`)
	require.NoError(t, err)
	ids, err := pgx.CollectRows(found, pgx.RowTo[string])
	require.NoError(t, err)
	return ids
}

func of(t *testing.T, id string) context.Context {
	o := envelope.NewOrigin("user:kari", id)
	o.PlatformScope = id == ""
	return envelope.WithOrigin(t.Context(), o)
}

// A row of docs/DELIVERY.md.
func TestTransactionSeesTheRowsOfItsTenantAlone(t *testing.T) {
	t.Parallel()
	pool := guarded(t)
	require.Empty(t, seen(t, pool), "nobody was named")
	for id, want := range map[string][]string{"a": {"a-1"}, "b": {"b-1"}, "c": {}, "": {}} {
		ctx := of(t, id)
		require.NoError(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			require.NoError(t, rows.Set(ctx, tx))
			require.Equal(t, want, seen(t, tx), id)
			return nil
		}))
		require.Empty(t, seen(t, pool), "the connection's next user has no tenant")
	}
}

func TestTransactionWritesNoRowsOfOthers(t *testing.T) {
	t.Parallel()
	pool, ctx := guarded(t), of(t, "a")
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		require.NoError(t, rows.Set(ctx, tx))
		tag, err := tx.Exec(ctx, `delete from node where id = 'b-1'`)
		require.NoError(t, err)
		require.Zero(t, tag.RowsAffected())
		_, err = tx.Exec(ctx, `insert into node values ('b', 'b-2')`)
		return err
	})
	require.ErrorContains(t, err, "row-level security")
}

func TestSettingEndsWithARollback(t *testing.T) {
	t.Parallel()
	pool, ctx, undo := guarded(t), of(t, "a"), errors.New("undo")
	require.ErrorIs(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		require.NoError(t, rows.Set(ctx, tx))
		return undo
	}), undo)
	require.Empty(t, seen(t, pool))
}

func TestWorkWithoutATenantIsRefused(t *testing.T) {
	t.Parallel()
	pool := guarded(t)
	for _, o := range []envelope.Origin{
		{},
		{CorrelationID: "c", Actor: "user:kari"},
		{CorrelationID: "c", Actor: "user:kari", TenantID: "a", PlatformScope: true},
	} {
		ctx := envelope.WithOrigin(t.Context(), o)
		require.NoError(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			require.ErrorIs(t, rows.Set(ctx, tx), tenant.ErrNoTenant)
			require.Empty(t, seen(t, tx))
			return nil
		}))
	}
}

// A name without a prefix would change a setting of PostgreSQL's.
func TestSettingHasAPrefix(t *testing.T) {
	t.Parallel()
	pool, ctx := guarded(t), of(t, "a")
	for _, bad := range []tenant.Setting{"", "search_path", "App.tenant", "app.", ".tenant", "app.tenant id", "a.b.c.d.e", tenant.Setting("app." + strings.Repeat("x", 60))} {
		require.Error(t, bad.Validate(), string(bad))
		require.NoError(t, pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			require.Equal(t, bad.Validate(), bad.Set(ctx, tx))
			return nil
		}))
	}
	require.NoError(t, rows.Validate())
}
