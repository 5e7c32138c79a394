package interop_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// asyncAPIFaults returns what the reference parser has against documents, a line
// for each fault behind the name of the file.
func asyncAPIFaults(t *testing.T, files ...string) string {
	t.Helper()
	for i := range files {
		absolute, err := filepath.Abs(files[i])
		require.NoError(t, err)
		files[i] = absolute
	}
	out, err := nodeCommand(t, "validate-asyncapi.mjs", files...).Output()
	require.Equal(t, err == nil, len(out) == 0, "%v: %s", err, out)
	return string(out)
}

// A validator that lets everything pass proves nothing.
func TestTheParserOfAsyncAPIFindsWhatAWriterGetsWrong(t *testing.T) {
	t.Parallel()
	const right = "testdata/small.asyncapi.json"
	text, err := os.ReadFile(right)
	require.NoError(t, err)
	dir := t.TempDir()
	files, want := []string{right}, map[string]string{}
	for fault, change := range map[string][2]string{
		"asyncapi3-operation-messages-from-referred-channel": {`"#/channels/dv.maskin.evt.server.provisioned/messages/v1"`, `"#/components/messages/v1"`},
		"invalid-ref":                {`"#/components/messages/v1"`, `"#/components/messages/v2"`},
		"asyncapi-document-resolved": {`{"type": "string"}`, `{"type": "text"}`},
	} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		require.NotEqual(t, string(text), changed, fault)
		broken := filepath.Join(dir, fault)
		require.NoError(t, os.WriteFile(broken, []byte(changed), 0o600))
		files, want[broken] = append(files, broken), fault
	}
	got := asyncAPIFaults(t, files...)
	for file, fault := range want {
		require.Contains(t, got, file+": "+fault+" at ")
	}
	require.NotContains(t, got, right)
}

// The golden document of package contract: both directions, two versions of an event,
// data that refers to itself.
func TestTheParserOfAsyncAPITakesTheDocumentOfACatalogue(t *testing.T) {
	t.Parallel()
	require.Empty(t, asyncAPIFaults(t, "../../contract/testdata/maskin.asyncapi.json"))
}
