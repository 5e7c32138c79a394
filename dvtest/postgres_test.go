package dvtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/internal/pgserver"
	"codeberg.org/dataverket/messaging/migrate"
)

func TestPostgresIsMigrated(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	require.NoError(t, migrate.Verify(t.Context(), pool, migrate.Config{}))
	require.Equal(t, int32(8), pool.Config().MaxConns)
	var shown string
	require.NoError(t, pool.QueryRow(t.Context(), "show application_name").Scan(&shown))
	require.Equal(t, t.Name(), shown)
}

func TestEmptyPostgresIsEmpty(t *testing.T) {
	t.Parallel()
	pool := dvtest.EmptyPostgres(t)
	version, ok := new(migrate.VersionError), false
	require.ErrorAs(t, migrate.Verify(t.Context(), pool, migrate.Config{}), &version)
	require.Zero(t, version.Have)
	require.NoError(t, pool.QueryRow(t.Context(), "select to_regnamespace('messaging') is null").Scan(&ok))
	require.True(t, ok)
}

func TestEachTestHasADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for _, pool := range []*pgxpool.Pool{dvtest.Postgres(t), dvtest.Postgres(t)} {
				_, err := pool.Exec(t.Context(), "create table messaging.mine ()") // fails where it exists
				require.NoError(t, err)
			}
		})
	}
}

// After a write that took long the driver reads in the background, until the next
// answer. Leak checks of test binaries on loaded machines found that.
func TestKeptConnectionHoldsNoGoroutine(t *testing.T) {
	t.Parallel()
	require.False(t, dvtest.KeepSlowConnection(t))
}

func TestDatabaseEndsWithItsTest(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("owner", func(t *testing.T) {
		pool := dvtest.Postgres(t)
		name = pool.Config().ConnConfig.Database
		require.Contains(t, databases(t, pool), name)
	})
	require.NotContains(t, databases(t, dvtest.Postgres(t)), name)
}

// recorder is a test that may fail without failing this one.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Helper()                           {}
func (r *recorder) Errorf(format string, args ...any) { r.failure = fmt.Sprintf(format, args...) }

// A pool waits for its connections when it is closed: a forgotten one would hang
// the test binary until its timeout, without a word on which test it was.
func TestForgottenConnectionFailsTheTest(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	config := pool.Config()
	mine, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	conn, err := mine.Acquire(t.Context())
	require.NoError(t, err)

	r := &recorder{TB: t}
	dvtest.ClosePool(r, mine, time.Millisecond)
	require.Contains(t, r.failure, "holds 1 database connections")
	conn.Release() // lets the close end that goes on
}

func TestShortSkipsWhatNeedsPostgres(t *testing.T) {
	t.Parallel()
	out, err := rerun(t, "TestPostgresIsMigrated", []string{"-test.short"})
	require.NoError(t, err, out)
	require.Contains(t, out, "skipped by -short: the test needs PostgreSQL")
}

func TestMissingPostgresFailsAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	out, err := rerun(t, "TestPostgresIsMigrated", nil, "DVMSG_DATABASE_URL=", pgserver.EnvBin+"=", pgserver.EnvSearch+"=/nowhere")
	require.Error(t, err)
	require.Contains(t, out, "no PostgreSQL 14 or newer")
	require.Contains(t, out, "install")
}

func TestGivenServerIsUsedAndLeftClean(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start(t.Context(), pgserver.Options{CachedInit: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	pool, err := pgxpool.New(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	// What killed tests left: one long ago, one that may be running.
	stamp := func(age time.Duration) string {
		return fmt.Sprintf("dvmsg_test_%x_planted", time.Now().Add(-age).Unix())
	}
	old, young, foreign := stamp(25*time.Hour), stamp(time.Hour), "dvmsg_test_of_somebody"
	for _, name := range []string{old, young, foreign} {
		_, err := pool.Exec(t.Context(), "create database "+name)
		require.NoError(t, err)
	}
	for range 2 { // the second finds the template
		out, err := rerun(t, "TestPostgresIsMigrated", nil, "DVMSG_DATABASE_URL="+server.URL("postgres"))
		require.NoError(t, err, out)
	}
	left := databases(t, pool)
	require.Len(t, left, 3)
	require.True(t, strings.HasPrefix(left[0], "dvmsg_template_"))
	require.ElementsMatch(t, []string{young, foreign}, left[1:])
}

// A run that was killed between creating and finishing the template must not
// leave every later one with half a template.
func TestUnfinishedTemplateIsMadeAnew(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start(t.Context(), pgserver.Options{CachedInit: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	pool, err := pgxpool.New(t.Context(), server.URL("postgres"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	given := "DVMSG_DATABASE_URL=" + server.URL("postgres")
	out, err := rerun(t, "TestPostgresIsMigrated", nil, given)
	require.NoError(t, err, out)
	template := databases(t, pool)[0]
	for _, sql := range []string{
		"alter database " + template + " is_template false", "drop database " + template, "create database " + template,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	out, err = rerun(t, "TestPostgresIsMigrated", nil, given)
	require.NoError(t, err, out)
}

func BenchmarkPostgres(b *testing.B) {
	dvtest.Postgres(b) // starts the server
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		require.NoError(b, dvtest.Postgres(b).Ping(b.Context()))
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
}
