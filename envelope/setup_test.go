package envelope_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

// provisionedV1 and provisionV1 are the payloads of the tests.
type provisionedV1 struct {
	ServerID string `json:"server_id"`
	Hostname string `json:"hostname"`
}

type provisionV1 struct {
	Plan string `json:"plan"`
}

// provisioned and provision are constant: one event and one command.
var (
	provisioned = envelope.MustEvent[provisionedV1](envelope.EventSpec{
		Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
	})
	provision = envelope.MustCommand[provisionV1](envelope.CommandSpec{
		Service: subject.Maskin, Entity: "server", Action: "provision", Version: 3,
	})
)

// traceparent is a good one, and its trace id.
const (
	traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
)

// testOrigin is constant: an origin inside a workflow.
var testOrigin = envelope.Origin{
	CorrelationID: "01936f2e-0000-7222-8333-444455556666", CausationID: "01936f2e-0001-7222-8333-444455556666",
	Actor: "user:42", TenantID: "tenant-42", Traceparent: traceparent,
}

// originCtx is a ctx that carries testOrigin, changed by the given function.
func originCtx(t *testing.T, change func(*envelope.Origin)) context.Context {
	t.Helper()
	o := testOrigin
	if change != nil {
		change(&o)
	}
	return envelope.WithOrigin(t.Context(), o)
}

// golden reads a file below testdata.
func golden(tb testing.TB, path ...string) []byte {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	require.NoError(tb, err)
	return data
}

// event decodes the golden event and applies the change, which may break it.
func event(tb testing.TB, change func(*envelope.Envelope)) *envelope.Envelope {
	tb.Helper()
	e, err := envelope.Decode(golden(tb, "valid", "v1", "event.json"))
	require.NoError(tb, err)
	if change != nil {
		change(e)
	}
	return e
}

// faults splits a joined error into the lines "field: reason" without what only
// repeats the package.
func faults(err error) []string {
	if err == nil {
		return nil
	}
	text := strings.ReplaceAll(err.Error(), "envelope: ", "")
	return strings.Split(strings.TrimPrefix(text, "malformed: "), "\n")
}
