package dvtest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// failing is a test that may fail without failing the one it runs in.
type failing struct {
	testing.TB
	text string
}

func (f *failing) Helper() {}

// Fatalf ends the goroutine, as that of a real test does.
func (f *failing) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure runs an assertion that must fail, and returns what it says.
func failure(t *testing.T, assertion func(tb testing.TB)) string {
	t.Helper()
	f := &failing{TB: t}
	ended := make(chan bool, 1)
	go func() {
		completed := false
		defer func() { ended <- completed }()
		assertion(f)
		completed = true
	}()
	require.False(t, <-ended, "the assertion holds, but must not")
	require.True(t, strings.HasPrefix(f.text, "dvtest: "), f.text)
	return f.text
}

// requireSays fails the test unless a failure holds all parts.
func requireSays(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		require.Contains(t, said, part)
	}
}
