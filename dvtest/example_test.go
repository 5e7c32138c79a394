package dvtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
)

// A test of a service: broker and database of its own, nothing to clean up.
func Example() {
	_ = func(t *testing.T) {
		t.Parallel()
		conn := dvtest.NATS(t)
		pool := dvtest.Postgres(t)
		require.NoError(t, conn.Ready())
		require.NoError(t, pool.Ping(t.Context()))
	}
	// Output:
}
