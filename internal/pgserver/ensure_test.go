package pgserver_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/pgserver"
)

// machine is what scripts/ensure-postgres.sh finds: programs that stand before the
// real ones, and a place for server binaries.
type machine struct {
	root        string
	environment []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "programs"), 0o755))
	return &machine{root: root, environment: []string{
		"PATH=" + filepath.Join(root, "programs") + ":/usr/bin:/bin",
		pgserver.EnvSearch + "=" + filepath.Join(root, "*", "bin"),
		"DVMSG_TEST_CREATECLUSTER_DIR=" + filepath.Join(root, "createcluster.d"),
	}}
}

// program puts a shell script where it is found first. It can note what it was
// called with in the file $NOTES and install a server below $ROOT.
func (m *machine) program(t *testing.T, name, body string) {
	t.Helper()
	head := "#!/bin/sh\nROOT=" + m.root + "\nNOTES=" + filepath.Join(m.root, "notes") + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(m.root, "programs", name), []byte(head+body), 0o755))
}

// ensure runs the script.
func (m *machine) ensure(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "../../scripts/ensure-postgres.sh", args...)
	command.Env = m.environment
	out, err := command.CombinedOutput()
	return string(out), err
}

func (m *machine) notes(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.root, "notes"))
	require.NoError(t, err)
	return string(text)
}

// installs is the body of an apt-get that puts a server of a version into place
// and notes its arguments and whether the cluster was ruled out.
func installs(version string) string {
	return `echo "apt-get $*" >>"$NOTES"
[ "$1" = install ] || exit 0
cat "$ROOT"/createcluster.d/* >>"$NOTES"
mkdir -p "$ROOT/pg/bin"
printf '#!/bin/sh\necho "postgres (PostgreSQL) ` + version + `"\n' | tee "$ROOT/pg/bin/postgres" >"$ROOT/pg/bin/initdb"
chmod +x "$ROOT"/pg/bin/*
`
}

func TestScriptFindsWhatTheLibraryFinds(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.program(t, "id", "echo 1000\n")
	m.program(t, "sudo", "exit 1\n")
	install(t, m.root, "13.9")
	_, err := m.ensure(t)
	require.Error(t, err)
	install(t, m.root, "14.0")
	out, err := m.ensure(t)
	require.NoError(t, err, out)
	require.Empty(t, out)
}

func TestScriptFindsThisMachinesServer(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "../../scripts/ensure-postgres.sh").CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestScriptInstallsAsRootWithoutACluster(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.program(t, "id", "echo 0\n")
	m.program(t, "apt-get", installs("15.3"))
	out, err := m.ensure(t)
	require.NoError(t, err, out)
	require.Equal(t, "apt-get install -y --no-install-recommends postgresql\ncreate_main_cluster = false\n", m.notes(t))
	require.True(t, missing(filepath.Join(m.root, "createcluster.d")), "no configuration may stay")
}

func TestScriptInstallsBySudoThatNeedsNoPassword(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.program(t, "id", "echo 1000\n")
	m.program(t, "sudo", `[ "$1" = -n ] && shift && echo "sudo $1" >>"$NOTES" && exec "$@"`+"\n")
	m.program(t, "apt-get", installs("15.3"))
	out, err := m.ensure(t)
	require.NoError(t, err, out)
	require.Contains(t, m.notes(t), "sudo env\napt-get install")
}

func TestScriptFetchesPackageListsWhereTheyAreMissing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.program(t, "id", "echo 0\n")
	m.program(t, "apt-get", `if [ "$1" = update ]; then touch "$ROOT/lists"; fi
[ "$1" = update ] || [ -e "$ROOT/lists" ] || exit 100
`+installs("15.3"))
	out, err := m.ensure(t)
	require.NoError(t, err, out)
	require.True(t, strings.HasPrefix(m.notes(t), "apt-get update\napt-get install"), m.notes(t))
}

func TestScriptThatMayNotInstallSaysWhatToRun(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{
		"apt-get": "Run: sudo apt-get install -y --no-install-recommends postgresql\n",
		"dnf":     "Run: sudo dnf install -y postgresql-server\n",
	} {
		m := newMachine(t)
		m.program(t, "id", "echo 1000\n")
		m.program(t, "sudo", "echo 'sudo: a password is required' >&2; exit 1\n")
		if name != "apt-get" {
			// Only the fake programs and what the script itself needs.
			for _, tool := range []string{"dirname", "sed", "tr", "grep"} {
				real, err := exec.LookPath(tool)
				require.NoError(t, err)
				require.NoError(t, os.Symlink(real, filepath.Join(m.root, "programs", tool)))
			}
			m.environment[0] = "PATH=" + filepath.Join(m.root, "programs")
		}
		m.program(t, name, `echo called >>"$NOTES"`+"\n")
		out, err := m.ensure(t)
		require.Error(t, err)
		require.True(t, strings.HasSuffix(out, command), out)
		require.Equal(t, 1, strings.Count(out, "\n"), out)
		require.True(t, missing(filepath.Join(m.root, "notes")), "nothing may be installed")
	}
}

func TestScriptRefusesAnInstalledServerThatIsTooOld(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.program(t, "id", "echo 0\n")
	m.program(t, "apt-get", installs("13.9"))
	out, err := m.ensure(t)
	require.Error(t, err)
	require.Contains(t, out, "older than 14")
}

func TestScriptKeepsToTheNamedDirectory(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	install(t, m.root, "15.1")
	m.environment = append(m.environment, pgserver.EnvBin+"="+filepath.Join(m.root, "nowhere"))
	out, err := m.ensure(t)
	require.Error(t, err)
	require.Contains(t, out, "unset DVMSG_POSTGRES_BIN")
}

func TestScriptNeedsNoServerWhereAnAddressWillDo(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.program(t, "id", "echo 1000\n")
	m.program(t, "sudo", "exit 1\n")
	m.environment = append(m.environment, "DVMSG_DATABASE_URL=postgres://db/x")
	_, err := m.ensure(t)
	require.Error(t, err, "the library's own tests start servers")
	out, err := m.ensure(t, "--or-url")
	require.NoError(t, err, out)
}
