package contract_test

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

var update = flag.Bool("update", false, "write the golden files anew")

// requireGolden compares an output with a file.
func requireGolden(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func event[T any](entity, verb string, version int) envelope.Type[T] {
	return envelope.MustEvent[T](envelope.EventSpec{Service: subject.Maskin, Entity: entity, Verb: verb, Version: version})
}

// The types that show every rule.
type (
	size   string
	amount struct{}
	head   struct {
		ID     uuid.UUID `json:"id"`
		At     time.Time `json:"at"`
		Shadow string    `json:"shadow"`
		_      int       // no field of the JSON
	}
	disk struct {
		Bytes uint64 `json:"bytes"`
		Kind  *size  `json:"kind"`
	}
	node struct {
		Name string           `json:"name"`
		Next *node            `json:"next"`
		Kids []node           `json:"kids,omitempty"`
		Map  map[string]*node `json:"map,omitempty"`
	}
	everything struct {
		head
		*Tail
		Size     size               `json:"size"`
		Shadow   int8               `json:"shadow"` // wins over the embedded one
		Amount   amount             `json:"amount"`
		Disks    []disk             `json:"disks"`
		Labels   map[string]string  `json:"labels,omitempty"`
		Counts   map[size][]float64 `json:"counts,omitzero"`
		Raw      json.RawMessage    `json:"raw,omitempty"`
		Any      any                `json:"any,omitempty"`
		Number   json.Number        `json:"number"`
		Key      []byte             `json:"key,omitempty"`
		Pair     [2]bool            `json:"pair"`
		Quoted   int64              `json:"quoted,string"`
		Address  netip.Addr         `json:"address"`
		Parent   *uuid.UUID         `json:"parent"`
		Tree     node               `json:"tree"`
		Other    *node              `json:"other,omitempty"`
		Colours  []string           `json:"colours" contract:"enum=red|blue"`
		Host     string             `json:"host" contract:"format=hostname"`
		Foreign  foreign            `json:"foreign" contract:"type=number"`
		Untagged string
		Hidden   chan int          `json:"-"`
		Artifact envelope.Artifact `json:"artifact,omitzero"`
		Deep     map[string]map[string]int32
		Page     page[int]   `json:"page"`
		Objects  page[*node] `json:"objects"`
	}
	// Tail is exported, or it could not be embedded by a pointer.
	Tail struct {
		Maybe string `json:"maybe"`
	}
	// page is generic and holds itself.
	page[T any] struct {
		Items []T      `json:"items"`
		More  *page[T] `json:"more,omitempty"`
	}
	foreign struct{ v float64 }
)

func (size) ContractEnum() []string { return []string{"small", "large"} }

func (amount) ContractSchema() string {
	return `{"type":"string","pattern":"^[0-9]+ NOK$","description":"øre"}`
}
func (a amount) MarshalJSON() ([]byte, error)  { return json.Marshal("1 NOK") }
func (f foreign) MarshalJSON() ([]byte, error) { return json.Marshal(f.v) }

// list is a list of maskin's with some messages that are produced.
func list(t testing.TB, produced ...contract.Message) contract.List {
	t.Helper()
	c, err := contract.New(subject.Maskin, contract.Produces(produced...))
	require.NoError(t, err)
	return c.List()
}
