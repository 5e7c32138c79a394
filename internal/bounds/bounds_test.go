package bounds_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/bounds"
)

func TestEveryValueOutOfItsRangeIsAFault(t *testing.T) {
	t.Parallel()
	faults := bounds.Check("pkg: Config.",
		bounds.Of("Low", 0, 1, 3, "the reason"),
		bounds.Of("High", int64(4), 1, 3, ""),
		bounds.Of("Wait", 2*time.Minute, time.Millisecond, time.Minute, "nobody waits longer"),
	)
	require.EqualError(t, errors.Join(faults...), `pkg: Config.Low: 0 is out of range; use 1 to 3 (the reason)
pkg: Config.High: 4 is out of range; use 1 to 3
pkg: Config.Wait: 2m0s is out of range; use 1ms to 1m0s (nobody waits longer)`)
}

func TestBothEndsAreInTheRange(t *testing.T) {
	t.Parallel()
	require.Empty(t, bounds.Check("", bounds.Of("a", 1, 1, 3, ""), bounds.Of("b", 3, 1, 3, ""), bounds.Of("c", 2, 2, 2, "")))
}
