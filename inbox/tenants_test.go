package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/tenant"
)

// guarded is a bundle whose inbox has a role that is held to a policy: notes belong to
// tenants, and there is one of each of three.
func guarded(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	role := pgx.Identifier{"role_of_" + b.pool.Config().ConnConfig.Database}.Sanitize()
	_, err := b.pool.Exec(t.Context(), `
create table note (tenant_id text not null, text text);
insert into note values ('a', 'of a'), ('b', 'of b'), ('c', 'of c');
alter table note enable row level security;
create policy tenant on note using (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
create role `+role+`;
grant usage on schema messaging to `+role+`;
grant all on note, effect to `+role+`;
grant all on all tables in schema messaging to `+role)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := b.pool.Exec(context.Background(), `drop owned by `+role+`; drop role `+role)
		require.NoError(t, err)
	})
	config := b.pool.Config()
	config.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `set role `+role)
		return err
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	b.in, err = inbox.New(pool, "plattform__servers", inbox.Config{TenantSetting: "app.tenant_id"})
	require.NoError(t, err)
	return b
}

// forTenant is a delivery for a tenant, "" for none.
func forTenant(id string) *envelope.Delivery {
	d := delivery(newMessage(), `{"hostname":"h1"}`)
	d.Envelope.TenantID = id
	return d
}

// notes are those that tx sees.
func notes(ctx context.Context, tx pgx.Tx) ([]string, error) {
	rows, err := tx.Query(ctx, `select text from note order by text`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// A row of docs/DELIVERY.md.
func TestHandlerSeesTheRowsOfItsMessagesTenantAlone(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	var saw []string
	route := inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, _ received) (err error) {
		saw, err = notes(ctx, tx)
		return err
	})
	for id, want := range map[string][]string{"a": {"of a"}, "b": {"of b"}, "none": {}, "": {}} {
		d := forTenant(id)
		// The message decides, whatever the context says.
		ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "c"))
		require.NoError(t, route.Handle(ctx, d))
		require.Equal(t, want, saw, id)
	}
	require.Equal(t, 4, b.rows(t))
}

func TestHandlerWritesNoRowsOfAnotherTenant(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	route := inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, m received) error {
		_, err := tx.Exec(ctx, `insert into note values ('b', 'forged')`)
		return err
	})
	d := forTenant("a")
	require.ErrorContains(t, route.Handle(d.Context(t.Context()), d), "row-level security")
	require.Zero(t, b.rows(t))
}

// A replay claims its row by another statement.
func TestReplaySeesTheRowsOfItsTenant(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	var saw []string
	route := inbox.On(b.in, provisioned, func(ctx context.Context, tx pgx.Tx, _ received) (err error) {
		saw, err = notes(ctx, tx)
		return err
	})
	d := forTenant("b")
	require.NoError(t, route.MarkDead(d.Context(t.Context()), d, letter))
	require.ErrorIs(t, route.Handle(d.Context(t.Context()), d), envelope.ErrAlreadyProcessed)
	d.LetterID = letter
	require.NoError(t, route.Handle(d.Context(t.Context()), d))
	require.Equal(t, []string{"of b"}, saw)
}

func TestOnceTakesTheTenantOfTheOrigin(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	m := newMessage()
	err := b.in.Once(t.Context(), m, never(t))
	require.ErrorIs(t, err, tenant.ErrNoTenant)
	require.True(t, envelope.IsPermanent(err))
	ctx := envelope.WithOrigin(t.Context(), envelope.NewOrigin("user:kari", "a"))
	require.NoError(t, b.in.Once(ctx, m, func(ctx context.Context, tx pgx.Tx) error {
		saw, err := notes(ctx, tx)
		require.Equal(t, []string{"of a"}, saw)
		return err
	}))
}

// Messages of several tenants come at once. Each call of the handler has those of one
// and sees no other's rows, in a batch as well as alone, and all are handled. A
// row of docs/DELIVERY.md.
func TestBatchHasOneTenant(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	const each, poison = 20, 7
	var all []*envelope.Delivery
	for i := range each {
		for _, id := range []string{"a", "b", "c"} {
			d := forTenant(id)
			d.Stream, d.Sequence = "DV_MASKIN_EVT", uint64(len(all)+1)
			if i == poison && id == "b" {
				d.Attempt = 2 // and is handled alone
			}
			all = append(all, d)
		}
	}
	var mu sync.Mutex
	handled := map[string]int{}
	route := inbox.OnBatch(b.in, provisioned, inbox.Batch{}, func(ctx context.Context, tx pgx.Tx, got []received) error {
		saw, err := notes(ctx, tx)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, m := range got {
			if want := "of " + m.Envelope.TenantID; len(saw) != 1 || saw[0] != want {
				return envelope.Permanent(fmt.Errorf("saw %q and not %q", saw, want))
			}
			handled[m.Envelope.TenantID]++
		}
		if got[0].Attempt == 2 {
			return envelope.Permanent(errors.New("poison"))
		}
		return applyAll(ctx, tx, got)
	})
	errs := together(t, route, shuffled(all)...)
	var failed int
	for _, err := range errs {
		if err != nil {
			require.ErrorContains(t, err, "poison")
			failed++
		}
	}
	require.Equal(t, 1, failed)
	require.Equal(t, map[string]int{"a": each, "b": each, "c": each}, handled)
	require.Equal(t, 3*each-1, b.effects(t))
	require.Equal(t, 3*each-1, b.rows(t))
}

func TestFullBatchOfEachTenantIsOneTransaction(t *testing.T) {
	t.Parallel()
	b := guarded(t)
	var mu sync.Mutex
	calls := map[string]int{}
	route := inbox.OnBatch(b.in, provisioned, inbox.FullBatch(5), func(ctx context.Context, tx pgx.Tx, got []received) error {
		saw, err := notes(ctx, tx)
		if want := "of " + got[0].Envelope.TenantID; err != nil || len(saw) > 1 || len(saw) == 1 && saw[0] != want {
			return errors.Join(err, fmt.Errorf("saw %q and not %q", saw, want))
		}
		mu.Lock()
		defer mu.Unlock()
		calls[fmt.Sprint(got[0].Envelope.TenantID, len(got), " ", saw)]++
		return applyAll(ctx, tx, got)
	})
	var all []*envelope.Delivery
	for range 5 {
		all = append(all, forTenant("a"), forTenant("b"), forTenant(""))
	}
	requireNone(t, together(t, route, all...))
	require.Equal(t, map[string]int{"a5 [of a]": 1, "b5 [of b]": 1, "5 []": 1}, calls, "and none that was handled alone")
}

func TestTenantSettingIsChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := inbox.New(b.pool, "plattform__servers", inbox.Config{TenantSetting: "search_path"})
	require.ErrorContains(t, err, "inbox: Config.TenantSetting")
}
