package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/migrate"
)

func TestMigrateGoesFromNothingToTheLatestVersion(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	e := environment{envDatabase: databaseURL(pool)}

	e.dvmsg(t, "migrate", "verify").failed(t, exitFound, `it is at version 0 and this library needs`, `run "dvmsg migrate up"`)
	e.dvmsg(t, "migrate", "verify", "--json").failed(t, exitFound)

	dry := e.dvmsg(t, "migrate", "up", "--dry-run").ok(t)
	require.Contains(t, dry.out, "schema messaging: would go from version 0 to ")
	require.Error(t, migrate.Verify(t.Context(), pool, migrate.Config{}), "a dry run changes nothing")

	up := decode[migrateUpResult](t, e.dvmsg(t, "migrate", "up", "--json").ok(t))
	require.Equal(t, migrateUpResult{Schema: "messaging", From: 0, To: migrate.Latest()}, up)
	require.NoError(t, migrate.Verify(t.Context(), pool, migrate.Config{}))

	require.Contains(t, e.dvmsg(t, "migrate", "up").ok(t).out, "nothing to do")
	require.Contains(t, e.dvmsg(t, "migrate", "verify").ok(t).out, "as needed")
	require.Equal(t, migrateVerifyResult{Schema: "messaging", OK: true, Have: migrate.Latest(), Want: migrate.Latest()},
		decode[migrateVerifyResult](t, e.dvmsg(t, "migrate", "verify", "--json").ok(t)))
}

func TestMigrateKeepsToItsSchema(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	e := environment{}
	e.dvmsg(t, "migrate", "up", "--database", databaseURL(pool), "--schema", "billing_messages").ok(t)
	require.NoError(t, migrate.Verify(t.Context(), pool, migrate.Config{Schema: "billing_messages"}))
	e.dvmsg(t, "migrate", "verify", "--database", databaseURL(pool)).failed(t, exitFound, `schema "messaging"`)
}

// A service of a newer release has upgraded the tables: an old dvmsg must not
// call that success, nor try to undo it.
func TestMigrateLeavesANewerDatabaseAlone(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `insert into messaging.schema_migrations (version, name, checksum) values ($1, 'later', 'x')`, migrate.Latest()+1)
	require.NoError(t, err)
	e := environment{envDatabase: databaseURL(pool)}
	for _, args := range [][]string{{"up"}, {"up", "--dry-run"}} {
		r := e.dvmsg(t, append([]string{"migrate"}, args...)...).failed(t, exitFailure, "upgrade the service")
		require.Empty(t, r.out)
	}
	r := e.dvmsg(t, "migrate", "verify", "--json").failed(t, exitFound)
	require.Equal(t, migrate.Latest()+1, decode[migrateVerifyResult](t, r).Have)
}

func TestMigrateVerifyNamesAChangedMigration(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	_, err := pool.Exec(t.Context(), `update messaging.schema_migrations set checksum = 'other' where version = 1`)
	require.NoError(t, err)
	r := environment{envDatabase: databaseURL(pool)}.dvmsg(t, "migrate", "verify", "--json").failed(t, exitFound, "applied with other contents")
	got := decode[migrateVerifyResult](t, r)
	require.False(t, got.OK)
	require.Equal(t, 1, got.Have)
	require.Contains(t, got.Fault, "0001_")
}

func TestMigrateExportPrintsTheLibrarysSQL(t *testing.T) {
	t.Parallel()
	e := environment{}
	want, err := migrate.Export(migrate.Config{})
	require.NoError(t, err)
	require.Equal(t, want, e.dvmsg(t, "migrate", "export").ok(t).out)

	want, err = migrate.ExportAfter(migrate.Config{Schema: "billing"}, 1)
	require.NoError(t, err)
	got := decode[migrateExportResult](t, e.dvmsg(t, "migrate", "export", "--schema", "billing", "--after", "1", "--json").ok(t))
	require.Equal(t, migrateExportResult{Schema: "billing", After: 1, To: migrate.Latest(), SQL: want}, got)
}
