package sites_test

import (
	"testing"

	"go.uber.org/goleak"

	"codeberg.org/dataverket/messaging/internal/natsserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natsserver.StillWaiting()...) }
