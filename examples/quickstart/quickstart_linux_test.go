package main

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// markEnv marks the processes of one test.
const markEnv = "QUICKSTART_TEST_MARK"

// marked is a running program whose processes can be found.
type marked struct {
	cmd    *exec.Cmd
	mark   string
	dir    string // for its files
	stderr bytes.Buffer
}

// startMarked starts the program and returns when its three services run.
func startMarked(t *testing.T) *marked {
	t.Helper()
	m := &marked{cmd: program(t, "--events", "2000"), mark: rand.Text(), dir: t.TempDir()}
	m.cmd.Env = append(m.cmd.Env, markEnv+"="+m.mark, "TMPDIR="+m.dir)
	m.cmd.Stderr = &m.stderr
	require.NoError(t, m.cmd.Start())
	require.Eventually(t, func() bool { return len(m.processes("--role")) == 3 }, 30*time.Second, 10*time.Millisecond)
	return m
}

// processes are the living ones, the program's own among them, whose command line
// has text in it.
func (m *marked) processes(text string) (pids []int) {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		dir := filepath.Dir(path)
		// One that ended meanwhile reads as nothing.
		environment, _ := os.ReadFile(path)
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if bytes.Contains(environment, []byte(markEnv+"="+m.mark)) && bytes.Contains(cmdline, []byte(text)) {
			pid, _ := strconv.Atoi(filepath.Base(dir)) // the pattern lets digits through only
			pids = append(pids, pid)
		}
	}
	return pids
}

func (m *marked) requireNoProcess(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return len(m.processes("")) == 0 }, 20*time.Second, 10*time.Millisecond,
		"processes are left behind")
}

func (m *marked) requireNoFile(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(m.dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestInterruptLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	m := startMarked(t)
	require.NoError(t, m.cmd.Process.Signal(os.Interrupt))
	require.Error(t, m.cmd.Wait(), "an interrupted run is no success")
	require.Contains(t, m.stderr.String(), "quickstart: interrupted")
	m.requireNoProcess(t)
	m.requireNoFile(t)
}

func TestKilledSupervisorLeavesNoProcessBehind(t *testing.T) {
	t.Parallel()
	m := startMarked(t)
	require.NoError(t, m.cmd.Process.Kill())
	require.Error(t, m.cmd.Wait())
	m.requireNoProcess(t)
}

// A service that ends by itself ends the demo, which says which one and why.
func TestServiceThatEndsByItselfFailsTheRun(t *testing.T) {
	t.Parallel()
	m := startMarked(t)
	victims := m.processes("plattform")
	require.Len(t, victims, 1)
	require.NoError(t, syscall.Kill(victims[0], syscall.SIGKILL))
	require.Error(t, m.cmd.Wait())
	require.Contains(t, m.stderr.String(), "quickstart: plattform ended (signal: killed")
	m.requireNoProcess(t)
	m.requireNoFile(t)
}
