package plattformapi_test

import (
	"testing"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
)

func TestContractsAreLocked(t *testing.T) {
	t.Parallel()
	contract.Check(t, plattformapi.Catalogue, "contracts.lock.json")
}
