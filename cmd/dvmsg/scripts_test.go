package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// recorder is a dvmsg that writes down how it is called. Its streams are as the
// scripts find them: made anew until they are accepted.
const recorder = `#!/bin/sh
echo "dvmsg $*" >>"$LOG"
case "$*" in
"outbox accept"*) touch "$LOG.accepted" ;;
"outbox status")
	if [ -n "${LEADS:-}" ]; then
		echo "relay  a-1 leads (term 1) until now"
	elif [ -n "${EMPTY:-}" ]; then
		echo "no stream yet: nothing was ever published or waits"
	elif [ -z "${IDLE:-}" ] && [ ! -e "$LOG.accepted" ]; then
		echo "DV_MASKIN_EVT  0  STREAM MADE ANEW: see dvmsg outbox accept"
	fi
	;;
esac
`

// recorded runs a script and returns what it had dvmsg do, what it printed, and how
// it ended.
func recorded(t *testing.T, environment []string, args ...string) (calls []string, out string, err error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"dvmsg": recorder, "sleep": "#!/bin/sh\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700))
	}
	script, err := filepath.Abs(filepath.Join("..", "..", "scripts", args[0]))
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), script, args[1:]...)
	cmd.Dir = dir
	cmd.Env = slices.Concat(os.Environ(), []string{"LOG=" + filepath.Join(dir, "log"), "PATH=" + dir + ":" + os.Getenv("PATH")}, environment)
	printed, err := cmd.CombinedOutput()
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	return slices.Compact(strings.Split(strings.TrimSpace(string(log)), "\n")), string(printed), err
}

// steps are the commands of the document that change something, or with dry those
// that rehearse it, as a shell calls them.
func (r runbook) steps(t *testing.T, v variables, dry bool, names ...string) (calls []string) {
	t.Helper()
	for _, name := range names {
		for _, line := range r.commands[name] {
			rehearses := strings.HasSuffix(line, " --dry-run")
			if changes := slices.Contains(r.commands[name], line+" --dry-run"); rehearses == dry && rehearses || changes && !dry || !rehearses && !changes {
				calls = append(calls, strings.Join(v.words(t, line), " "))
			}
		}
	}
	return calls
}

// The scripts do what the document says, which tests do against real servers.
func TestTheScriptsOfRecoveryDoWhatTheRunbookSays(t *testing.T) {
	t.Parallel()
	book := readRunbook(t)
	v := variables{"SERVICE": "plattform", "FILE": "plattform.json", "WHY": "DV-500", "BACKUP": "2026-01-02T03:00:00Z"}
	streams := []string{"recover-jetstream.sh", "streams", "plattform", "plattform.json", "DV-500"}
	publish := []string{"recover-jetstream.sh", "publish", "plattform", "plattform.json", "DV-500"}
	postgres := []string{"recover-postgres.sh", "plattform", "plattform.json", "2026-01-02T03:00:00Z", "DV-500"}
	for name, c := range map[string]struct {
		script []string
		dry    bool
		want   []string
	}{
		"streams, rehearsed":  {streams, true, book.steps(t, v, true, "J3", "J4")},
		"streams":             {streams, false, book.steps(t, v, false, "J3", "J4")},
		"publish, rehearsed":  {publish, true, []string{"dvmsg outbox status"}},
		"publish":             {publish, false, append(book.steps(t, v, false, "J5"), "dvmsg outbox status")},
		"postgres, rehearsed": {postgres, true, append([]string{"dvmsg migrate up --dry-run", "dvmsg outbox status"}, book.steps(t, v, true, "P4", "P5", "P6")...)},
		"postgres":            {postgres, false, append([]string{"dvmsg migrate up", "dvmsg outbox status"}, book.steps(t, v, false, "P4", "P5", "P6")...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := slices.Clone(c.script)
			if !c.dry {
				args = append(args, "--yes")
			}
			calls, out, err := recorded(t, nil, args...)
			require.NoError(t, err, out)
			require.Equal(t, c.want, calls)
			require.Equal(t, c.dry, strings.Contains(out, "nothing was changed"), out)
		})
	}
}

func TestTheScriptsOfRecoveryRefuseWhatTheyCannotDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		environment []string
		args        string
		want        string
		calls       int
	}{
		"nothing is said":        {nil, "recover-jetstream.sh", "SERVICE FILE REASON", 0},
		"an unknown phase":       {nil, "recover-jetstream.sh all s f r", "SERVICE FILE REASON", 0},
		"another flag":           {nil, "recover-postgres.sh s f t r --no", "SERVICE FILE BACKUP REASON", 0},
		"a relay runs":           {[]string{"LEADS=1"}, "recover-postgres.sh s f t r --yes", "stop the service first", 2},
		"no relay waits in time": {[]string{"IDLE=1", "WAIT=3"}, "recover-jetstream.sh publish s f r --yes", "no relay of s waits", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls, out, err := recorded(t, c.environment, strings.Fields(c.args)...)
			require.Error(t, err)
			require.Contains(t, out, c.want)
			if c.calls > 0 {
				require.Len(t, calls, c.calls)
			}
		})
	}
	_, out, err := recorded(t, []string{"EMPTY=1"}, "recover-jetstream.sh", "publish", "s", "f", "r", "--yes")
	require.NoError(t, err, "a service that published nothing has nothing to publish again")
	require.Contains(t, out, "has published nothing yet")
}
