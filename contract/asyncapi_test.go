package contract_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// documented is the catalogue of the tests: two versions of an event, one that holds
// itself, commands in both directions, another service's event.
func documented(t testing.TB) contract.Catalogue {
	t.Helper()
	seen := event[seenV1]("server", "seen", 1)
	c, err := contract.New(subject.Maskin,
		contract.Produces(seen, event[seenV2]("server", "seen", 2), event[node]("node", "grown", 1), told),
		contract.Handles(see, up, seen))
	require.NoError(t, err)
	return c
}

func TestTheAsyncAPIDocumentIsAsRecorded(t *testing.T) {
	t.Parallel()
	got, err := documented(t).AsyncAPI(contract.AsyncAPIOptions{})
	require.NoError(t, err)
	requireGolden(t, "testdata/maskin.asyncapi.json", got)
	again, err := documented(t).AsyncAPI(contract.AsyncAPIOptions{})
	require.NoError(t, err)
	require.Equal(t, string(got), string(again))

	named, err := documented(t).AsyncAPI(contract.AsyncAPIOptions{Title: "Machines", Version: "2.3.4", Description: "It *provisions*."})
	require.NoError(t, err)
	var d struct {
		Info map[string]string `json:"info"`
	}
	require.NoError(t, json.Unmarshal(named, &d))
	require.Equal(t, map[string]string{"title": "Machines", "version": "2.3.4", "description": "It *provisions*."}, d.Info)
}

// The rules of the specification that its readers trip over.
func TestTheAsyncAPIDocumentHoldsTogether(t *testing.T) {
	t.Parallel()
	data, err := documented(t).AsyncAPI(contract.AsyncAPIOptions{})
	require.NoError(t, err)
	var d map[string]any
	require.NoError(t, json.Unmarshal(data, &d))

	references := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				references++
				require.NotNil(t, lookup(d, ref), ref)
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(d)
	require.Greater(t, references, 20)

	for name, o := range d["operations"].(map[string]any) {
		op := o.(map[string]any)
		action, channel, _ := strings.Cut(name, ".")
		require.Equal(t, action, op["action"])
		require.Equal(t, "#/channels/"+channel, op["channel"].(map[string]any)["$ref"])
		for _, m := range op["messages"].([]any) {
			require.Contains(t, m.(map[string]any)["$ref"], "#/channels/"+channel+"/messages/", "a reference to components is an error")
		}
	}
	for address, c := range d["channels"].(map[string]any) {
		on, err := subject.Parse(address)
		require.NoError(t, err)
		class := topology.ClassEvents
		if on.Family() == subject.FamilyCommand {
			class = topology.ClassCommands
		}
		require.Equal(t, topology.StreamName(on.Service(), class), c.(map[string]any)["x-dv-stream"])
	}
}

// lookup follows a reference of a document.
func lookup(document map[string]any, ref string) any {
	var at any = document
	for _, key := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[key]
	}
	return at
}

func TestARetiredVersionIsNotDocumentedAndABadNameIsRefused(t *testing.T) {
	t.Parallel()
	l := documented(t).List()
	l.Contracts = l.Contracts[:1]
	l.Contracts[0].Retired = true
	got, err := l.AsyncAPI(contract.AsyncAPIOptions{})
	require.NoError(t, err)
	require.Contains(t, string(got), `"channels": {}`)

	l.Contracts[0].Subject = "dv.maskin.cmd"
	_, err = l.AsyncAPI(contract.AsyncAPIOptions{})
	require.ErrorContains(t, err, "contract: AsyncAPI: maskin.node.grown v1: subject: of this event it must be dv.maskin.evt.node.grown")
}
