package dvtest_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/natsserver"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, natsserver.StillWaiting()...)
}

// rerun runs one test of this binary in a process of its own, in another
// environment, and returns what it printed.
func rerun(t *testing.T, test string, flags []string, environment ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], append(flags, "-test.run=^"+test+"$", "-test.v")...)
	command.Env = append(os.Environ(), environment...)
	out, err := command.CombinedOutput()
	return string(out), err
}

// databases lists those whose names begin like ours.
func databases(t *testing.T, pool *pgxpool.Pool) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), "select datname::text from pg_database where starts_with(datname, 'dvmsg_') order by 1")
	require.NoError(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}
