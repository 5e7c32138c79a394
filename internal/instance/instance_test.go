package instance_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/internal/instance"
)

func TestNameTellsHostProcessAndInstance(t *testing.T) {
	t.Parallel()
	one, another := instance.Name(), instance.Name()
	require.Regexp(t, fmt.Sprintf(`^[^/]+/%d/[A-Z2-7]{8}$`, os.Getpid()), one)
	require.NotEqual(t, one, another)
}
