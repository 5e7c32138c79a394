package main

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// markEnv marks the processes of one test.
const markEnv = "QUICKSTART_TEST_MARK"

// startMarked starts the program, waits until its three services run, and returns
// its process with the mark of all processes and the directory for their files.
func startMarked(t *testing.T) (cmd *os.Process, wait func() error, mark, dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped by -short: the test needs PostgreSQL")
	}
	mark, dir = rand.Text(), t.TempDir()
	program := program(t, "--events", "2000")
	program.Env = append(program.Env, markEnv+"="+mark, "TMPDIR="+dir)
	program.Stdout, program.Stderr = t.Output(), t.Output()
	require.NoError(t, program.Start())
	require.Eventually(t, func() bool { return services(mark) == 3 }, 30*time.Second, 10*time.Millisecond)
	return program.Process, program.Wait, mark, dir
}

// services counts the living services of a test.
func services(mark string) int {
	return marked(mark, func(cmdline []byte) bool { return bytes.Contains(cmdline, []byte("--role")) })
}

// marked counts the living processes of a test whose command line is wanted.
func marked(mark string, wanted func(cmdline []byte) bool) (n int) {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		// One that ended meanwhile reads as nothing.
		environment, _ := os.ReadFile(path)
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if bytes.Contains(environment, []byte(markEnv+"="+mark)) && wanted(cmdline) {
			n++
		}
	}
	return n
}

func requireNoneLeft(t *testing.T, mark string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return marked(mark, func([]byte) bool { return true }) == 0
	}, 20*time.Second, 10*time.Millisecond, "processes are left behind")
}

func TestInterruptLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	process, wait, mark, dir := startMarked(t)
	require.NoError(t, process.Signal(os.Interrupt))
	require.Error(t, wait(), "an interrupted run is no success")
	requireNoneLeft(t, mark)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestKilledSupervisorLeavesNoProcessBehind(t *testing.T) {
	t.Parallel()
	process, wait, mark, _ := startMarked(t)
	require.NoError(t, process.Signal(syscall.SIGKILL))
	require.Error(t, wait())
	requireNoneLeft(t, mark)
}

// A service that ends by itself ends the demo, with the reason from its log.
func TestServiceThatEndsByItselfFailsTheRun(t *testing.T) {
	t.Parallel()
	_, wait, mark, dir := startMarked(t)
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, path := range environments {
		environment, _ := os.ReadFile(path)
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if bytes.Contains(environment, []byte(mark)) && bytes.Contains(cmdline, []byte("plattform")) {
			var pid int
			for _, digit := range filepath.Base(filepath.Dir(path)) {
				pid = pid*10 + int(digit-'0')
			}
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	require.Error(t, wait())
	requireNoneLeft(t, mark)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}
