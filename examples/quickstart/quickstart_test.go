package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// programEnv makes the test binary be the program itself: the same code, built
// with the race detector like the tests.
const programEnv = "QUICKSTART_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// program is the command with some arguments.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	// An interrupt instead of a kill, when the test's time is over, lets it clean up.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// The whole demo at a smaller size: three services in processes of their own, one
// killed between its commit and its acknowledgement.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	cmd := program(t, "--events", "150", "--kills", "1", "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, io.MultiWriter(&stderr, t.Output())
	require.NoError(t, cmd.Run(), "%s", stdout.String())
	require.Contains(t, stderr.String(), "ack wait 2s, lease 2s")

	var r report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), "standard output is one JSON document")
	require.Empty(t, r.Faults)
	require.EqualValues(t, 360, r.Figures.Requested)
	require.EqualValues(t, 359, r.Figures.Committed)
	require.EqualValues(t, 356, r.Figures.Effects)
	require.Zero(t, r.Figures.Lost)
	require.Zero(t, r.Figures.Duplicated)
	require.Zero(t, r.Figures.OutOfOrder)
	require.Zero(t, r.Figures.Phantoms)
	require.EqualValues(t, 4, r.Figures.DeadLettered)
	require.EqualValues(t, 1, r.Figures.Replayed)
	require.Positive(t, r.Figures.Redelivered)
	require.Len(t, r.Kills, 1)
	require.Len(t, r.DeadLetters, 4)
	require.Equal(t, "resolved", r.Replay.State)
	require.Equal(t, "srv-00008", r.Replay.Server)
	requireWholeWorkflow(t, r.Workflow)
}

// requireWholeWorkflow demands the chain from the request to the last handler.
func requireWholeWorkflow(t *testing.T, at *step) {
	t.Helper()
	var kinds []string
	for began := at.At; at != nil; at = at.Steps[0] {
		require.False(t, at.At.IsZero(), at.Name)
		require.WithinDuration(t, began, at.At, time.Minute)
		kinds = append(kinds, at.Kind)
		if len(at.Steps) == 0 {
			break
		}
	}
	require.Equal(t, []string{"request", "command", "handler", "event", "handler"}, kinds)
}

func TestBadFlagsAreRefusedAllAtOnce(t *testing.T) {
	t.Parallel()
	var usage bytes.Buffer
	_, err := parseOptions([]string{"--events", "3", "--kills", "21", "extra"}, &usage)
	require.ErrorContains(t, err, "--events: 3 is out of range; use 10 to 100000")
	require.ErrorContains(t, err, "--kills: 21 is out of range; use 0 to 20")
	require.ErrorContains(t, err, `unexpected argument "extra"`)

	_, err = parseOptions([]string{"--events", "39", "--kills", "2"}, &usage)
	require.ErrorContains(t, err, "--kills: 2 kills need --events 40 or more")

	_, err = parseOptions([]string{"--help"}, &usage)
	require.Error(t, err)
	require.Contains(t, usage.String(), "--kills")
	require.NotContains(t, usage.String(), "--role", "what only the supervisor uses is not shown")

	o, err := parseOptions(nil, &usage)
	require.NoError(t, err)
	require.Equal(t, options{servers: 2000, kills: 3, seed: 1}, o)
}

func TestServiceWithoutItsEnvironmentSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	out, err := program(t, "--role", "maskin").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "quickstart: read ACK_WAIT")
	out, err = program(t, "--role", "ukjent").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `there is no service "ukjent"`)
}

func TestFailedRunIsReportedAndFails(t *testing.T) {
	t.Parallel()
	r := &report{Workflow: &step{}, Faults: []string{"1 requests are lost"}, Kills: []kill{{Handled: 1}}, Replay: &replay{}}
	for _, asJSON := range []bool{true, false} {
		var out strings.Builder
		require.ErrorContains(t, r.write(&out, asJSON), "1 requests are lost")
		require.NotEmpty(t, out.String())
	}
}
