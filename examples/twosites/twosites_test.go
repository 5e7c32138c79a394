package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/examples/internal/progress"
	"codeberg.org/dataverket/messaging/internal/natsserver"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, natsserver.StillWaiting()...)
}

// The whole demo at a smaller size, with one server at each site. How fast it is, and
// what falls into a fault of so short a time, is the machine's matter.
func TestTwoSites(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "progress"))
	require.NoError(t, err)
	defer file.Close()
	opts := options{events: 220, rate: 150, fault: 100 * time.Millisecond, servers: 1}
	r, err := play(t.Context(), opts, progress.New(file))
	require.NoError(t, err)
	var out bytes.Buffer
	_ = r.write(&out) // its error is what is looked at below
	t.Log(out.String())
	for _, fault := range r.faults {
		require.True(t, strings.HasPrefix(fault, "void:"), fault)
	}
	require.Len(t, r.sites, 2)
	for i, site := range []string{osl1, trd1} {
		f := r.sites[i]
		require.Positive(t, f.RateDisturbed)
		f.CaughtUp, f.RateDisturbed, f.RateUndisturbed, f.P99Disturbed, f.P99Undisturbed, f.Repeats = 0, 0, 0, 0, 0, 0
		require.Equal(t, figures{Site: site,
			AskedEvents: 220, AskedCommands: 20, Events: 220, Commands: 20, CopiedEvents: 220, CopiedCommands: 20,
			OwnEffects: 220, OtherEffects: 220, Carried: 20}, f)
	}
	var made int64
	require.Len(t, r.struck, len(plan))
	for _, s := range r.struck {
		made += s.Made
		if s.Kind == kindCut || s.Kind == kindHole {
			require.Zero(t, s.Passed, "%s let something through", s.Kind)
		}
	}
	require.Positive(t, made, "nothing was committed while the link was disturbed")
}

// TestMain sees to it that no goroutine of a server is left.
func TestInterruptEndsTheRun(t *testing.T) {
	t.Parallel()
	file, err := os.Create(filepath.Join(t.TempDir(), "progress"))
	require.NoError(t, err)
	defer file.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan error, 1)
	go func() {
		_, err := play(ctx, options{events: 100_000, rate: 100, fault: time.Second, servers: 1}, progress.New(file))
		ended <- err
	}()
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(file.Name())
		return err == nil && bytes.Contains(text, []byte("link whole"))
	}, 30*time.Second, 10*time.Millisecond)
	interrupt()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestBadFlagsAreRefusedAllAtOnce(t *testing.T) {
	t.Parallel()
	var usage bytes.Buffer
	_, err := parseOptions([]string{"--events", "3", "--rate", "0", "--fault", "1ms", "--servers", "2", "extra"}, &usage)
	for _, text := range []string{
		"--events: 3 is out of range; use 200 to 1000000", "--rate: 0 is out of range", "--fault: 1ms is out of range",
		"--servers: 2 is no size of a site; use 1 or 3", `unexpected argument "extra"`,
	} {
		require.ErrorContains(t, err, text)
	}
	_, err = parseOptions([]string{"--help"}, &usage)
	require.Error(t, err)
	require.Contains(t, usage.String(), "--servers")

	o, err := parseOptions(nil, &usage)
	require.NoError(t, err)
	require.Equal(t, options{events: 10_000, rate: 350, fault: 3 * time.Second, servers: 3}, o)
}

// The traffic lasts so long that the link is whole for as long as it is not, and what
// is asked for is made at no higher rate than asked for.
func TestTrafficLastsAsLongAsTheFaults(t *testing.T) {
	t.Parallel()
	few := options{events: 100, rate: 100, fault: time.Second}
	require.Equal(t, 19*time.Second, few.lasts())
	require.Equal(t, time.Second, few.rest())
	many := options{events: 50_000, rate: 500, fault: 3 * time.Second}
	require.Equal(t, 100*time.Second, many.lasts())
	require.Equal(t, 7300*time.Millisecond, many.rest())
}
