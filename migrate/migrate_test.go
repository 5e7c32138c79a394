package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/migrate"
)

const (
	eventually = 20 * time.Second
	tableA     = "create table {{schema}}.a ();"
	tableB     = "create table {{schema}}.b ();"
	tableC     = "create table {{schema}}.c ();"
)

func ExampleUp() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://billing@db/billing")
	if err != nil {
		return
	}
	defer pool.Close()
	if err := migrate.Up(ctx, pool, migrate.Config{Schema: "billing_messages"}); err != nil {
		return // the service does not start
	}
}

func ExampleVerify() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://billing@db/billing")
	if err != nil {
		return
	}
	defer pool.Close()
	err = migrate.Verify(ctx, pool, migrate.Config{})
	if version, ok := errors.AsType[*migrate.VersionError](err); ok && version.Have < version.Want {
		fmt.Println("waiting for the operator to migrate")
	}
}

func ExampleExport() {
	script, err := migrate.Export(migrate.Config{Schema: "billing_messages"})
	if err != nil {
		return
	}
	fmt.Println(strings.Contains(script, `create table "billing_messages".outbox_events`))
	// Output: true
}

func TestUpThenVerify(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, migrate.Up(t.Context(), b.pool, migrate.Config{}))
	require.NoError(t, migrate.Verify(t.Context(), b.pool, migrate.Config{}))
	require.Equal(t, []string{"messaging", "public"}, b.schemas(t))
	first := b.history(t, "messaging")
	require.Len(t, first, migrate.Latest())

	require.NoError(t, migrate.Up(t.Context(), b.pool, migrate.Config{}))
	require.Equal(t, first, b.history(t, "messaging"), "a second Up must do nothing")
}

// Services start in many replicas at once, and each calls Up.
func TestConcurrentUpsApplyEachMigrationOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// The strictest defaults a role can have; a repeatable read would look at
	// the history as it was before it waited for the lock.
	pool := reconfigured(t, b.pool, func(c *pgxpool.Config) {
		c.MaxConns = 16
		c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
		c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
		c.ConnConfig.RuntimeParams["search_path"] = "nowhere"
	})
	var group sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		group.Go(func() { errs[i] = migrate.Up(t.Context(), pool, migrate.Config{}) })
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.NoError(t, migrate.Verify(t.Context(), pool, migrate.Config{}))
	require.Len(t, b.history(t, "messaging"), migrate.Latest())
}

// reconfigured is another pool on the same database.
func reconfigured(t *testing.T, pool *pgxpool.Pool, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config := pool.Config()
	change(config)
	other, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(other.Close)
	return other
}

// A short lock_timeout is good for a service's daily work and must not end its
// start while another replica migrates.
func TestWaitingForAnotherUpIsBoundedByTheContextAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	impatient := reconfigured(t, b.pool, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["lock_timeout"] = "10ms" })
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `select pg_advisory_xact_lock(hashtextextended('dvmsg migrate "messaging"', 0))`)
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	given, waited := make(chan error, 1), make(chan error, 1)
	go func() { given <- migrate.Up(ctx, impatient, migrate.Config{}) }()
	go func() { waited <- migrate.Up(t.Context(), impatient, migrate.Config{}) }()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		waiting := b.strings(t, `select pid::text from pg_stat_activity where datname = current_database()
			and wait_event_type = 'Lock' and clock_timestamp() - query_start > interval '50 ms'`)
		require.Len(c, waiting, 2)
	}, eventually, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-given, context.Canceled)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-waited)
	require.NoError(t, migrate.Verify(t.Context(), b.pool, migrate.Config{}))
}

// A role may have any search path, even one in which a name of PostgreSQL's means
// something else: that must not be built into the tables.
func TestTablesDoNotDependOnTheSearchPath(t *testing.T) {
	t.Parallel()
	b, plain := setup(t), setup(t)
	b.exec(t, "create schema evil; create function evil.clock_timestamp() returns timestamptz language sql as 'select now()'")
	odd := reconfigured(t, b.pool, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = "evil, pg_catalog" })
	require.NoError(t, migrate.Up(t.Context(), odd, migrate.Config{}))
	require.NoError(t, migrate.Up(t.Context(), plain.pool, migrate.Config{}))
	require.Equal(t, plain.structure(t, "messaging"), b.structure(t, "messaging"))
}

func TestOlderDatabaseIsAVersionError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	requireVersion := func(have int) {
		t.Helper()
		err := migrate.VerifyFrom(t.Context(), b.pool, migrate.Config{Schema: "s"}, folder(tableA, tableB))
		got, ok := errors.AsType[*migrate.VersionError](err)
		require.True(t, ok, "%v", err)
		require.Equal(t, migrate.VersionError{Schema: "s", Have: have, Want: 2}, *got)
		require.ErrorContains(t, err, `run "dvmsg migrate up"`)
	}
	requireVersion(0)
	require.Equal(t, []string{"public"}, b.schemas(t), "Verify must change nothing")
	require.NoError(t, migrate.UpFrom(t.Context(), b.pool, migrate.Config{Schema: "s"}, folder(tableA)))
	requireVersion(1)
	require.NoError(t, migrate.UpFrom(t.Context(), b.pool, migrate.Config{Schema: "s"}, folder(tableA, tableB)))
	require.NoError(t, migrate.VerifyFrom(t.Context(), b.pool, migrate.Config{Schema: "s"}, folder(tableA, tableB)))
}

func TestNewerDatabaseIsAVersionError(t *testing.T) {
	t.Parallel()
	b, cfg, old := setup(t), migrate.Config{}, folder(tableA)
	require.NoError(t, migrate.UpFrom(t.Context(), b.pool, cfg, folder(tableA, tableB, tableC)))
	before := b.history(t, "messaging")
	for name, err := range map[string]error{
		"verify": migrate.VerifyFrom(t.Context(), b.pool, cfg, old),
		"up":     migrate.UpFrom(t.Context(), b.pool, cfg, old),
	} {
		got, ok := errors.AsType[*migrate.VersionError](err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, migrate.VersionError{Schema: "messaging", Have: 3, Want: 1}, *got)
		require.ErrorContains(t, err, "upgrade the service")
	}
	require.Equal(t, before, b.history(t, "messaging"))
}

func TestChangedMigrationIsAChecksumError(t *testing.T) {
	t.Parallel()
	b, cfg := setup(t), migrate.Config{}
	require.NoError(t, migrate.UpFrom(t.Context(), b.pool, cfg, folder(tableA, tableB)))
	changed := folder(tableA, tableB+"-- edited", tableC)
	for name, err := range map[string]error{
		"verify": migrate.VerifyFrom(t.Context(), b.pool, cfg, changed),
		"up":     migrate.UpFrom(t.Context(), b.pool, cfg, changed),
	} {
		got, ok := errors.AsType[*migrate.ChecksumError](err)
		require.True(t, ok, "%s: %v", name, err)
		require.Equal(t, 2, got.Version)
		require.Equal(t, "m2", got.Name)
		require.Equal(t, "messaging", got.Schema)
		require.NotEqual(t, got.Have, got.Want)
	}
	require.Len(t, b.history(t, "messaging"), 2, "nothing may be applied on top")
}

func TestHoleInTheHistoryIsRefused(t *testing.T) {
	t.Parallel()
	b, cfg := setup(t), migrate.Config{}
	require.NoError(t, migrate.Up(t.Context(), b.pool, cfg))
	b.exec(t, "delete from messaging.schema_migrations where version = 1")
	require.ErrorContains(t, migrate.Verify(t.Context(), b.pool, cfg), "holds version 2 where 1 is due")
	require.ErrorContains(t, migrate.Up(t.Context(), b.pool, cfg), "holds version 2 where 1 is due")
}

func TestFailedMigrationLeavesTheOnesBeforeIt(t *testing.T) {
	t.Parallel()
	b, cfg := setup(t), migrate.Config{}
	err := migrate.UpFrom(t.Context(), b.pool, cfg, folder(tableA, tableB+" create table {{schema}}.c (); select 1/0;", tableC))
	require.ErrorContains(t, err, "apply 0002_m2")
	require.ErrorContains(t, err, "division by zero")
	require.Len(t, b.history(t, "messaging"), 1)
	require.Equal(t, []string{"a", "schema_migrations"}, b.strings(t, "select tablename::text from pg_tables where schemaname = 'messaging' order by 1"))

	require.NoError(t, migrate.UpFrom(t.Context(), b.pool, cfg, folder(tableA, tableB, tableC)))
	require.Len(t, b.history(t, "messaging"), 3)
}

func TestSchemasAreIndependent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	longest := strings.Repeat("x", 63)
	for _, schema := range []string{"", "select", "billing_1", longest} {
		cfg := migrate.Config{Schema: schema}
		require.Error(t, migrate.Verify(t.Context(), b.pool, cfg))
		require.NoError(t, migrate.Up(t.Context(), b.pool, cfg))
		require.NoError(t, migrate.Verify(t.Context(), b.pool, cfg))
	}
	require.Equal(t, []string{"billing_1", "messaging", "public", "select", longest}, b.schemas(t))
	require.Empty(t, b.strings(t, "select tablename::text from pg_tables where schemaname = 'public'"))
}

func TestHostileSchemaNamesNeverReachTheDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, "create table public.precious ()")
	for _, schema := range []string{
		`x"; drop table public.precious; --`, `x'; drop table public.precious; --`, "x; drop table public.precious",
		"public.precious", "X", "x y", "x\x00", "x\n", "å", "$$", "{{schema}}", "pg_catalog", "information_schema", strings.Repeat("x", 64),
	} {
		cfg := migrate.Config{Schema: schema}
		_, exportErr := migrate.Export(cfg)
		for _, err := range []error{migrate.Up(t.Context(), b.pool, cfg), migrate.Verify(t.Context(), b.pool, cfg), exportErr} {
			require.ErrorContains(t, err, "migrate: Config.Schema", "%q", schema)
		}
	}
	require.Equal(t, []string{"public"}, b.schemas(t))
	require.Equal(t, []string{"precious"}, b.strings(t, "select tablename::text from pg_tables where schemaname = 'public'"))
}

// as opens a pool whose connections act as a fresh role with the given rights;
// %s in a grant is the role.
func (b *testBundle) as(t *testing.T, grants ...string) *pgxpool.Pool {
	t.Helper()
	// Roles belong to the server, not to the database: the name must be unique.
	role := "dvmsg_role_" + b.strings(t, "select substr(md5(random()::text), 1, 12)")[0]
	b.exec(t, "create role "+role)
	b.exec(t, "grant "+role+" to current_user") // a role that is no superuser needs it
	t.Cleanup(func() {
		for _, sql := range []string{"reassign owned by " + role + " to current_user", "drop owned by " + role, "drop role " + role} {
			_, err := b.pool.Exec(context.Background(), sql)
			require.NoError(t, err)
		}
	})
	for _, grant := range grants {
		b.exec(t, fmt.Sprintf(grant, role))
	}
	return reconfigured(t, b.pool, func(c *pgxpool.Config) {
		c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "set role "+role)
			return err
		}
	})
}

func TestServiceRoleNeedsNoRightToCreate(t *testing.T) {
	t.Parallel()
	b, cfg := setup(t), migrate.Config{}
	require.NoError(t, migrate.Up(t.Context(), b.pool, cfg))
	service := b.as(t, "grant usage on schema messaging to %s", "grant select on messaging.schema_migrations to %s")
	require.NoError(t, migrate.Up(t.Context(), service, cfg))
	require.NoError(t, migrate.Verify(t.Context(), service, cfg))
}

func TestMigratorNeedsNoRightOnTheDatabaseWhereTheSchemaExists(t *testing.T) {
	t.Parallel()
	b, cfg := setup(t), migrate.Config{Schema: "prepared"}
	migrator := b.as(t, "create schema prepared authorization %s")
	require.NoError(t, migrate.Up(t.Context(), migrator, cfg))
	require.ErrorContains(t, migrate.Up(t.Context(), migrator, migrate.Config{Schema: "other"}), "permission denied")
}

func TestExportedScriptIsWhatUpDoes(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"messaging", "select"} {
		t.Run(schema, func(t *testing.T) {
			t.Parallel()
			cfg := migrate.Config{Schema: schema}
			exported, migrated := setup(t), setup(t)
			require.NoError(t, migrate.Up(t.Context(), migrated.pool, cfg))
			script, err := migrate.Export(cfg)
			require.NoError(t, err)
			exported.psql(t, script)

			require.NoError(t, migrate.Verify(t.Context(), exported.pool, cfg))
			require.NoError(t, migrate.Up(t.Context(), exported.pool, cfg))
			structure := migrated.structure(t, schema)
			require.Greater(t, len(structure), 10)
			require.Equal(t, structure, exported.structure(t, schema))
		})
	}
}

func TestExportAfterLeavesOutWhatIsThere(t *testing.T) {
	t.Parallel()
	b, cfg := setup(t), migrate.Config{}
	for version := range migrate.Latest() {
		all, err := migrate.ExportAfter(cfg, version)
		require.NoError(t, err)
		rest, err := migrate.ExportAfter(cfg, version+1)
		require.NoError(t, err)
		// One at a time: the first migration of what is left.
		_, first, found := strings.Cut(all, "begin;")
		require.True(t, found)
		first, _, _ = strings.Cut(first, "commit;")
		require.NotContains(t, rest, first)
		b.psql(t, "begin;"+first+"commit;")
		require.Len(t, b.history(t, "messaging"), version+1)
	}
	require.NoError(t, migrate.Verify(t.Context(), b.pool, cfg))

	none, err := migrate.ExportAfter(cfg, migrate.Latest())
	require.NoError(t, err)
	require.NotContains(t, none, "begin;")
	for _, version := range []int{-1, migrate.Latest() + 1} {
		_, err := migrate.ExportAfter(cfg, version)
		require.ErrorContains(t, err, "this library has versions 1 to")
	}
}

// Names and comments of a migration stand in the script of a service; a quote or
// a backslash command in them would break it, or worse.
func TestExportedScriptHoldsNoPsqlCommands(t *testing.T) {
	t.Parallel()
	script, err := migrate.Export(migrate.Config{})
	require.NoError(t, err)
	require.False(t, slices.ContainsFunc(strings.Split(script, "\n"), func(line string) bool {
		return strings.HasPrefix(strings.TrimSpace(line), `\`)
	}))
	require.NotContains(t, script, "{{")
}

func BenchmarkUpWithNothingToDo(b *testing.B) {
	pool := dvtest.Postgres(b)
	for b.Loop() {
		require.NoError(b, migrate.Up(b.Context(), pool, migrate.Config{}))
	}
}
