package tutorial_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	// longest bounds the commands of a step: some compile and link, which a cold cache
	// and a busy machine make slow.
	longest = 5 * time.Minute
	// soon bounds what happens by itself after them, in well under a second.
	soon = time.Minute
)

// TestTutorialHappensAsItIsWritten does what docs/TUTORIAL.md tells its reader to do,
// in one shell and in a folder of its own, and compares what it says with what
// happens. Modules come from the module cache alone.
func TestTutorialHappensAsItIsWritten(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(root, "docs", "TUTORIAL.md"))
	require.NoError(t, err)
	steps, err := readPage(string(page))
	require.NoError(t, err)
	require.Greater(t, len(steps), 15, "a page without steps proves nothing")

	dir := t.TempDir()
	sh := startShell(t, dir, append(environment(), "MESSAGING="+root))
	for _, s := range steps {
		began := time.Now()
		if s.file != "" {
			require.NoError(t, os.WriteFile(filepath.Join(sh.pwd, s.file), []byte(s.text), 0o600))
			continue
		}
		sh.follow(t, s)
		t.Logf("TUTORIAL.md:%d: %s", s.line, time.Since(began).Round(time.Millisecond))
	}
}

// environment is ours without what would change the servers that the page starts,
// and offline.
func environment() (vars []string) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		server := strings.HasPrefix(name, "DVMSG_") && !strings.HasPrefix(name, "DVMSG_POSTGRES_")
		if !server && name != "GOFLAGS" && name != "GOWORK" {
			vars = append(vars, v)
		}
	}
	return append(vars, "GOPROXY=off", "GOTOOLCHAIN=local", "GOWORK=off")
}

// shell is the reader's: one bash, which knows its variables and jobs from step to
// step.
type shell struct {
	in   io.Writer
	pwd  string // where it stands; files are written there
	said *transcript
	n    int // steps so far
}

// transcript collects what the shell and its jobs print.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// since returns what was printed from a place on.
func (s *transcript) since(place int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text.Bytes()[place:])
}

// startShell starts bash in a process group of its own, which ends with the test and
// takes the jobs that a failed page left running with it.
func startShell(t *testing.T, dir string, env []string) *shell {
	t.Helper()
	cmd := exec.Command("bash")
	cmd.Dir, cmd.Env = dir, append(env, "PWD="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	sh := &shell{pwd: dir, said: &transcript{}}
	cmd.Stdout, cmd.Stderr = sh.said, sh.said
	cmd.WaitDelay = 10 * time.Second
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	sh.in = in
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = in.Close()
		_ = cmd.Wait() // killed, if the page did not end by itself
	})
	return sh
}

// follow runs the commands of a step, and waits until they have ended and printed
// what the page says: a job in the background prints when it likes.
func (sh *shell) follow(t *testing.T, s step) {
	t.Helper()
	begin := len(sh.said.since(0))
	status := sh.run(t, s)
	for deadline := time.Now().Add(soon); ; {
		output := sh.said.since(begin)
		lacking := missing(output, s.want)
		if status == 0 && lacking == "" {
			return
		}
		require.True(t, time.Now().Before(deadline) && (s.again || status == 0),
			"TUTORIAL.md:%d: status %d, and the output lacks %q:\n%s\n%s", s.line, status, lacking, output, sh.logs())
		<-time.After(50 * time.Millisecond)
		if s.again {
			begin = len(sh.said.since(0))
			status = sh.run(t, s)
		}
	}
}

// run sends the commands, and waits for their status.
func (sh *shell) run(t *testing.T, s step) (status int) {
	t.Helper()
	sh.n++
	begin := len(sh.said.since(0))
	mark := fmt.Sprintf("@end of %d:", sh.n)
	// A step fails with the first of its commands that does. One that is repeated runs
	// in a shell of its own, for which a failure is not the end of everything; any
	// other may change what the following steps find, and ends the shell when it fails.
	format := "trap 'echo \"%[1]s 1 $PWD\"' EXIT; set -e\n%[2]strap - EXIT; set +e; echo \"%[1]s 0 $PWD\"\n"
	if s.again {
		format = "( set -e\n%[2]s); echo \"%[1]s $? $PWD\"\n"
	}
	_, err := fmt.Fprintf(sh.in, format, mark, s.text)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, end, found := strings.Cut(sh.said.since(begin), mark)
		if !found || !strings.Contains(end, "\n") {
			return false
		}
		_, err := fmt.Sscan(end, &status, &sh.pwd)
		return err == nil
	}, longest, 10*time.Millisecond, "TUTORIAL.md:%d: the commands do not end", s.line)
	return status
}

// logs is what the page sent to files.
func (sh *shell) logs() string {
	text, _ := os.ReadFile(filepath.Join(sh.pwd, "objekt.log"))
	return string(text)
}

func TestPageIsReadAsItIsMeant(t *testing.T) {
	t.Parallel()
	steps, err := readPage("Text.\n\n`a/b.go`:\n\n```go\npackage b\n```\n\n```sh\ncd a\n```\n```sh again\nls\n```\nIt prints\n```text\nb.go\n```\n")
	require.NoError(t, err)
	require.Equal(t, []step{
		{line: 5, file: "a/b.go", text: "package b\n"},
		{line: 9, text: "cd a\n"},
		{line: 12, text: "ls\n", again: true, want: []string{"b.go"}},
	}, steps)
	for _, page := range []string{"```go\nx\n```\n", "```text\nx\n```\n", "```sh\nx\n", "`a`:\n```\nx\n```\n```text\nx\n```\n"} {
		_, err := readPage(page)
		require.Error(t, err, page)
	}
	require.Empty(t, missing("one  two\nthree", []string{"two", "three"}))
	require.Equal(t, "one", missing("one two three", []string{"two", "one"}))
}
