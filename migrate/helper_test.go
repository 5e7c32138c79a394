package migrate_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/internal/pgserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testBundle is an empty database.
type testBundle struct {
	pool *pgxpool.Pool
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	return &testBundle{pool: dvtest.EmptyPostgres(t)}
}

func (b *testBundle) exec(tb testing.TB, sql string, args ...any) {
	tb.Helper()
	_, err := b.pool.Exec(tb.Context(), sql, args...)
	require.NoError(tb, err)
}

// strings returns the first column of a query.
func (b *testBundle) strings(tb testing.TB, sql string, args ...any) []string {
	tb.Helper()
	rows, err := b.pool.Query(tb.Context(), sql, args...)
	require.NoError(tb, err)
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(tb, err)
	return found
}

// history is what was applied, with the time, so that a second application shows.
func (b *testBundle) history(tb testing.TB, schema string) []string {
	tb.Helper()
	return b.strings(tb, "select format('%s %s %s %s', version, name, checksum, applied_at) from "+schema+".schema_migrations order by version")
}

// schemas are those that are not PostgreSQL's own.
func (b *testBundle) schemas(tb testing.TB) []string {
	tb.Helper()
	return b.strings(tb, "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema$)' order by 1")
}

// structure describes everything in a schema: columns, constraints, indexes.
func (b *testBundle) structure(tb testing.TB, schema string) []string {
	tb.Helper()
	return b.strings(tb, `
select format('%s column %s %s %s %s %s %s', c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid))
  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where c.relnamespace = quote_ident($1::text)::regnamespace
union all select format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) from pg_constraint where connamespace = quote_ident($1::text)::regnamespace
union all select indexdef from pg_indexes where schemaname = $1::text
order by 1`, schema)
}

// psql runs a script as an operator would. The program comes with the server.
func (b *testBundle) psql(tb testing.TB, script string) {
	tb.Helper()
	program, err := exec.LookPath("psql")
	if err != nil {
		found, err := pgserver.Find(tb.Context())
		require.NoError(tb, err)
		program = filepath.Join(found.Dir, "psql")
	}
	file := filepath.Join(tb.TempDir(), "export.sql")
	require.NoError(tb, os.WriteFile(file, []byte(script), 0o600))
	config := b.pool.Config().ConnConfig
	command := exec.CommandContext(tb.Context(), program, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file="+file)
	command.Env = append(os.Environ(), "PGHOST="+config.Host, fmt.Sprint("PGPORT=", config.Port), "PGDATABASE="+config.Database,
		"PGUSER="+config.User, "PGPASSWORD="+config.Password, "PGOPTIONS=-c client_min_messages=warning")
	out, err := command.CombinedOutput()
	require.NoError(tb, err, string(out))
}

// folder makes migrations of the given texts, numbered from 1.
func folder(texts ...string) fs.FS {
	files := fstest.MapFS{}
	for i, text := range texts {
		files[fmt.Sprintf("%04d_m%d.sql", i+1, i+1)] = &fstest.MapFile{Data: []byte(text)}
	}
	return files
}
