package processed_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/processed"
)

func TestAlreadyIsSaidByTheWholeErrorOnly(t *testing.T) {
	t.Parallel()
	there := envelope.ErrAlreadyProcessed
	require.True(t, processed.Already(there))
	require.True(t, processed.Already(fmt.Errorf("server-1: %w", there)))
	require.False(t, processed.Already(nil))
	require.False(t, processed.Already(errors.Join(there, errors.New("rack 7 is full"))))
	require.False(t, processed.Already(fmt.Errorf("%w, and %w", there, errors.New("rack 7 is full"))))
}
