package consumer_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/natsserver"
)

// The test binary is also the processes that a message or a test kills.
func TestMain(m *testing.M) {
	switch role := os.Getenv(crashEnv); role {
	case "":
	case killAfterPark, killInHandler, killAnywhere:
		fmt.Fprintln(os.Stderr, parkingChild(role))
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, crashingChild())
		os.Exit(1)
	}
	if os.Getenv(replicaEnv) != "" {
		if err := replicaChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(orderedEnv) != "" {
		fmt.Fprintln(os.Stderr, orderedChild())
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, natsserver.StillWaiting(
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))...)
}
