package contract_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/contract"
)

// FuzzParse holds that no file makes the parser, the comparison or a writer panic or
// loop, that what is accepted is written and read again as the same, and that
// nothing differs from itself.
func FuzzParse(f *testing.F) {
	data, err := list(f, event[everything]("thing", "seen", 2), told, event[node]("node", "grown", 1)).Encode()
	require.NoError(f, err)
	f.Add(data)
	for _, seed := range []string{
		`{"format":1,"service":"maskin","contracts":[{"schema":{"$ref":"#/definitions/a","definitions":{"a":{"anyOf":[{"$ref":"#"}]}}}}]}`,
		`{"format":1,"lock":true,"contracts":[{"type":"a","retired":true,"schema":{"type":["string","null"],"enum":[1,"a",null,true]}}]}`,
		`{"format":1,"contracts":[{"schema":{"properties":{"":{"minimum":1e308}},"required":[""]}}]}`,
		`{"format":1,"contracts":null}`, `{}`, `null`,
	} {
		f.Add([]byte(seed))
	}
	if golden, err := os.ReadFile("testdata/contracts.lock.json"); err == nil {
		f.Add(golden)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := contract.Parse(data)
		if err != nil {
			require.Zero(t, l)
			return
		}
		require.Empty(t, contract.Compare(l, l))
		_ = l.Lint()
		encoded, err := l.Encode()
		require.NoError(t, err)
		again, err := contract.Parse(encoded)
		require.NoError(t, err, string(encoded))
		require.Empty(t, contract.Compare(l, again))
		twice, err := again.Encode()
		require.NoError(t, err)
		require.Equal(t, string(encoded), string(twice))
		document, err := l.AsyncAPI(contract.AsyncAPIOptions{})
		if err == nil {
			require.NotEmpty(t, document)
		}
		if lock, _, err := contract.Accept(contract.NewLock(l.Service), l); err == nil {
			require.Empty(t, contract.BreakingOf(contract.Compare(lock, l)))
		}
	})
}
