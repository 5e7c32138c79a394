package panics_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/panics"
)

// located returns where f panicked, as told through one more function.
func located(f func()) (location string) {
	defer func() {
		if recover() != nil {
			location = throughAnother()
		}
	}()
	f()
	return "no panic"
}

func throughAnother() string { return panics.Location() }

func callsPanic() { panic("boom") }

func writesNilMap() { writes(nil) }

func writes(m map[string]int) { m["x"] = 1 }

func TestLocationIsWhatPanickedAndNotTheRuntime(t *testing.T) {
	t.Parallel()
	const here = "codeberg.org/dataverket/messaging/internal/panics_test."
	require.Regexp(t, `^`+here+`callsPanic:\d+$`, located(callsPanic))
	require.Regexp(t, `^`+here+`writes:\d+$`, located(writesNilMap))
}

func TestWhereNothingPanicsThereIsNoLocation(t *testing.T) {
	t.Parallel()
	require.Empty(t, panics.Location())
}
