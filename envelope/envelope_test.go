package envelope_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

func TestDecodedFieldsAreWhereTheyBelong(t *testing.T) {
	t.Parallel()
	e := event(t, nil)
	require.Equal(t, "1.0", e.SpecVersion)
	require.Equal(t, "01936f2e-1111-7222-8333-444455556666", e.ID)
	require.Equal(t, "maskin.server.provisioned", e.Type)
	require.Equal(t, subject.Maskin, e.Source)
	require.Equal(t, "server/9a1", e.Subject)
	require.Equal(t, time.Date(2026, 3, 14, 12, 0, 0, 123456000, time.UTC), e.Time)
	require.Equal(t, "application/json", e.DataContentType)
	require.Equal(t, "urn:dataverket:schema:maskin.server.provisioned:v1", e.DataSchema)
	require.Equal(t, 1, e.SchemaVersion())
	require.Equal(t, "tenant-42", e.TenantID)
	require.Equal(t, "project-7", e.ProjectID)
	require.Equal(t, "prod", e.EnvironmentID)
	require.Equal(t, "osl1", e.DatacenterID)
	require.Equal(t, envelope.Actor("user:42"), e.Actor)
	require.Equal(t, "01936f2e-0000-7222-8333-444455556666", e.CorrelationID)
	require.Equal(t, "01936f2e-0001-7222-8333-444455556666", e.CausationID)
	require.Equal(t, envelope.Internal, e.Visibility)
	require.JSONEq(t, `{"server_id":"9a1","hostname":"web-1"}`, string(e.Data))
}

// An exported field that no list knows would be lost on the wire.
func TestEveryExportedFieldTravels(t *testing.T) {
	t.Parallel()
	e, err := envelope.Decode(golden(t, "valid", "v1", "external.json"))
	require.NoError(t, err)
	fields := 0
	for field, value := range reflect.ValueOf(*e).Fields() {
		if field.IsExported() {
			require.False(t, value.IsZero(), field.Name)
			fields++
		}
	}
	require.Equal(t, envelope.FieldCount, fields)
}

func TestDataAliasesTheInput(t *testing.T) {
	t.Parallel()
	input := golden(t, "valid", "v1", "event.json")
	e, err := envelope.Decode(input)
	require.NoError(t, err)
	at := bytes.Index(input, e.Data)
	require.Same(t, &input[at], &e.Data[0])
}

func TestSizeIsBoundedBothWays(t *testing.T) {
	t.Parallel()
	fill := func(e *envelope.Envelope, size int) {
		e.Data = json.RawMessage(`{"fill":""}`)
		encoded, err := e.Encode()
		require.NoError(t, err)
		e.Data = json.RawMessage(`{"fill":"` + strings.Repeat("x", size-len(encoded)) + `"}`)
	}
	e := event(t, nil)
	fill(e, envelope.MaxSize)
	encoded, err := e.Encode()
	require.NoError(t, err)
	require.Len(t, encoded, envelope.MaxSize)
	_, err = envelope.Decode(encoded)
	require.NoError(t, err)

	fill(e, envelope.MaxSize+1)
	_, err = e.Encode()
	require.ErrorIs(t, err, envelope.ErrTooLarge)
	require.EqualError(t, err, "envelope: encode: envelope: too large: 524289 bytes exceed the limit of 524288: "+
		"put large data elsewhere and reference it with envelope.Artifact")

	_, err = envelope.Decode(append(encoded, ' '))
	require.ErrorIs(t, err, envelope.ErrTooLarge)
	require.ErrorIs(t, err, envelope.ErrMalformed)
}

func TestTimeIsWrittenInUTCWithMicroseconds(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("CET", 3600)
	for want, moment := range map[string]time.Time{
		"2026-03-14T12:00:00Z":        time.Date(2026, 3, 14, 13, 0, 0, 999, zone),
		"2026-03-14T12:00:00.1Z":      time.Date(2026, 3, 14, 12, 0, 0, 100000999, time.UTC),
		"2026-03-14T12:00:00.000001Z": time.Date(2026, 3, 14, 12, 0, 0, 1000, time.UTC),
		"2026-03-14T12:00:00.12045Z":  time.Date(2026, 3, 14, 12, 0, 0, 120450000, time.UTC),
		"0000-01-01T00:00:00Z":        time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
		"9999-12-31T23:59:59.999999Z": time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	} {
		encoded, err := event(t, func(e *envelope.Envelope) { e.Time = moment }).Encode()
		require.NoError(t, err)
		require.Contains(t, string(encoded), `"time":"`+want+`"`)
		require.Equal(t, cap(encoded), len(encoded), "the size is known before writing")
	}
}

func TestEncodeTrimsWhiteSpaceAroundData(t *testing.T) {
	t.Parallel()
	encoded, err := event(t, func(e *envelope.Envelope) { e.Data = json.RawMessage(" {\"a\": 1}\n") }).Encode()
	require.NoError(t, err)
	require.True(t, bytes.HasSuffix(encoded, []byte(`"data":{"a": 1}}`)))
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	t.Parallel()
	_, err := new(envelope.Envelope).Encode()
	require.NotErrorIs(t, err, envelope.ErrMalformed)
	require.Len(t, faults(err), 10)
	fault, ok := errors.AsType[*envelope.FieldError](err)
	require.True(t, ok)
	require.Equal(t, "specversion", fault.Field)
}

func TestSchemaVersionOfAnotherTypeIsZero(t *testing.T) {
	t.Parallel()
	require.Zero(t, event(t, func(e *envelope.Envelope) { e.Type = "maskin.server.removed" }).SchemaVersion())
	require.Zero(t, new(envelope.Envelope).SchemaVersion())
}

func TestVisibilitySpeaks(t *testing.T) {
	t.Parallel()
	require.Equal(t, "internal", envelope.Internal.String())
	require.Equal(t, "external", envelope.External.String())
}

// Logs are read more widely than messages.
func TestLogsHoldNoDataAndNoTenant(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("seen", "envelope", event(t, nil))
	for _, secret := range []string{"web-1", "tenant-42", "user:42", "server/9a1", "project-7"} {
		require.NotContains(t, out.String(), secret)
	}
	var line struct{ Envelope map[string]any }
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, map[string]any{
		"id": "01936f2e-1111-7222-8333-444455556666", "type": "maskin.server.provisioned", "source": "maskin",
		"correlation_id": "01936f2e-0000-7222-8333-444455556666",
		"causation_id":   "01936f2e-0001-7222-8333-444455556666",
		"tenant_hash":    "f71d3741b2bc6cc8", "data_bytes": float64(38),
	}, line.Envelope)

	out.Reset()
	log.Info("seen", "envelope", (*envelope.Envelope)(nil))
	require.Contains(t, out.String(), `"envelope":"none"`)
}

// A canary in every value: no error text may hold it.
func TestErrorsNeverHoldValues(t *testing.T) {
	t.Parallel()
	const canary = "cAnArY"
	e := event(t, func(e *envelope.Envelope) {
		e.SpecVersion, e.ID, e.Type, e.Subject = canary, canary, canary, canary+"\x00"
		e.Source, e.DataContentType, e.DataSchema = 99, canary, canary
		e.TenantID, e.ProjectID, e.EnvironmentID, e.DatacenterID = canary+" ", canary+" ", canary+" ", canary+" "
		e.Actor, e.CorrelationID, e.CausationID = canary, canary+" ", canary+" "
		e.Visibility, e.Data, e.Time = canary, json.RawMessage(`"`+canary+`"`), time.Time{}
	})
	err := e.Validate()
	require.Len(t, faults(err), envelope.FieldCount)
	require.NotContains(t, err.Error(), canary)
	require.NotContains(t, e.CheckHeader(envelope.Header{"tenant-id": {canary}, "Dv-Type": {canary, canary}}).Error(), canary)
}
