package inbox_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The test binary is also the process that is killed in a sweep.
func TestMain(m *testing.M) {
	if os.Getenv(sweeperEnv) != "" {
		fmt.Fprintln(os.Stderr, sweepingChild())
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}
