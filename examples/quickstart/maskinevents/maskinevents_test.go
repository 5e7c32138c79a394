package maskinevents_test

import (
	"testing"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
)

func TestContractsAreLocked(t *testing.T) {
	t.Parallel()
	contract.Check(t, maskinevents.Catalogue, "contracts.lock.json")
}
