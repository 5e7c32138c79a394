package envelope_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

// goldenNames lists the files below testdata with the given ending, without it.
func goldenNames(tb testing.TB, dir, ending string) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*"+ending))
	require.NoError(tb, err)
	require.NotEmpty(tb, files)
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ending)
	}
	return files
}

// The wire is a promise: these files are read and written as they are for as
// long as version 1 exists. A change adds a folder, it never edits one.
func TestGoldenEnvelopesSurviveDecodingAndEncoding(t *testing.T) {
	t.Parallel()
	for _, name := range goldenNames(t, "valid/v1", ".json") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := envelope.Decode(golden(t, "valid", "v1", name+".json"))
			require.NoError(t, err)
			require.NoError(t, e.Validate())

			encoded, err := e.Encode()
			require.NoError(t, err)
			require.Equal(t, string(encodedGolden(t, name)), string(encoded))

			again, err := envelope.Decode(encoded)
			require.NoError(t, err)
			require.Equal(t, e, again)
		})
	}
}

// encodedGolden is how an envelope is written: the file itself, unless it was
// made to look different and has its written form beside it.
func encodedGolden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "valid", "v1", name+".encoded"))
	if errors.Is(err, os.ErrNotExist) {
		data = golden(t, "valid", "v1", name+".json")
	}
	return bytes.TrimSuffix(data, []byte("\n"))
}

func TestGoldenHeadersFollowFromTheEnvelope(t *testing.T) {
	t.Parallel()
	for _, name := range goldenNames(t, "valid/v1", ".json") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := envelope.Decode(golden(t, "valid", "v1", name+".json"))
			require.NoError(t, err)
			h := envelope.Message{Envelope: e, Traceparent: traceparent}.Header()
			require.NoError(t, h.Validate())
			require.NoError(t, e.CheckHeader(h))
			// The files end their lines as text files do.
			want := strings.ReplaceAll(string(golden(t, "valid", "v1", name+".header")), "\n", "\r\n")
			require.Equal(t, want, envelope.MarshalHeader(h))
		})
	}
}

func TestGoldenBadEnvelopesAreRefusedWithEveryFault(t *testing.T) {
	t.Parallel()
	for _, name := range goldenNames(t, "bad", ".json") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := envelope.Decode(golden(t, "bad", name+".json"))
			require.Nil(t, e)
			require.ErrorIs(t, err, envelope.ErrMalformed)
			want := strings.Split(strings.TrimSuffix(string(golden(t, "bad", name+".want")), "\n"), "\n")
			require.Equal(t, want, faults(err))
		})
	}
}

func TestUnknownFieldsAreKeptInOrderAndByteByByte(t *testing.T) {
	t.Parallel()
	e, err := envelope.Decode(golden(t, "valid", "v1", "unknown_fields.json"))
	require.NoError(t, err)
	var names, values []string
	for name, value := range e.Unknown() {
		names, values = append(names, name), append(values, string(value))
	}
	require.Equal(t, []string{"x_first", "x_second", "x third", ""}, names)
	require.Equal(t, []string{
		`{"b" : 1, "a" : [ 1.50 , 1e5 ]}`, `null`, `"kept \u2028 \/ as it is"`, `false`,
	}, values)

	for name := range e.Unknown() {
		require.Equal(t, "x_first", name)
		break // leaving early is allowed
	}
}

// What other readers make of our bytes is part of the contract (requirement M9).
func TestEncodedEnvelopesMeanTheSameToEncodingJSON(t *testing.T) {
	t.Parallel()
	e, err := envelope.Decode(golden(t, "valid", "v1", "external.json"))
	require.NoError(t, err)
	encoded, err := e.Encode()
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(encoded, &got))
	require.Equal(t, map[string]any{
		"specversion": "1.0", "id": "01936f2e-1111-7222-8333-444455556666",
		"type": "maskin.server.provisioned", "source": "maskin", "subject": `rack "12" \ Bodø`,
		"time": "2026-03-14T12:00:00.123456Z", "datacontenttype": "application/json",
		"dataschema": "urn:dataverket:schema:maskin.server.provisioned:v1",
		"tenant_id":  "tenant-42", "project_id": "project-7", "environment_id": "prod", "datacenter_id": "osl1",
		"actor": "user:42", "correlation_id": "01936f2e-0000-7222-8333-444455556666",
		"causation_id": "01936f2e-0001-7222-8333-444455556666", "visibility": "external",
		"data": map[string]any{"server_id": "9a1", "hostname": "web-1"},
	}, got)
}
