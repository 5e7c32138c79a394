package cloudevents_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

// fieldError returns the first fault of a field in an error.
func fieldError(err error) (*envelope.FieldError, bool) {
	return errors.AsType[*envelope.FieldError](err)
}

func TestAStructuredEventIsReadAsAnEnvelope(t *testing.T) {
	t.Parallel()
	ce, err := cloudevents.Decode(nil, []byte(structured))
	require.NoError(t, err)
	e, h, report, err := cloudevents.ToEnvelope(ce, receivedAt)
	require.NoError(t, err)
	require.Empty(t, report)
	require.Equal(t, native(t, ""), e)
	want := envelope.Message{Envelope: e, Traceparent: traceparent}.Header()
	want["tracestate"] = []string{"a=1,b=2"}
	require.Equal(t, want, h)
	require.NoError(t, e.CheckHeader(h))
	require.NoError(t, h.Validate())
}

func TestWhatAnEventLacksIsFilledInByRuleAndReported(t *testing.T) {
	t.Parallel()
	e, _, report, err := cloudevents.ToEnvelope(event(t, ""), receivedAt)
	require.NoError(t, err)
	require.Equal(t, []string{"time assumed", "datacontenttype assumed", "correlationid assumed"}, outcomes(report))
	require.Equal(t, time.Date(2026, 3, 14, 12, 0, 0, 987654000, time.UTC), e.Time)
	require.Equal(t, e.ID, e.CorrelationID)
	require.Equal(t, "application/json", e.DataContentType)
	require.Empty(t, e.TenantID)
	require.Empty(t, e.CausationID)
}

func TestTimesAndContentTypesAreBroughtIntoTheFormOfTheEnvelope(t *testing.T) {
	t.Parallel()
	const rest = `,"correlationid":"c","datacontenttype":"application/json","time":`
	for text, changed := range map[string]bool{
		"2026-03-14T12:00:00Z": false, "2026-03-14T12:00:00.123456Z": false,
		"2026-03-14T13:00:00+01:00": true, "2026-03-14T12:00:00.100Z": true, "2026-03-14T12:00:00.1234567Z": true,
	} {
		e, _, report, err := cloudevents.ToEnvelope(event(t, rest+`"`+text+`"`), receivedAt)
		require.NoError(t, err)
		require.Equal(t, changed, len(report) == 1, text)
		want, err := time.Parse(time.RFC3339, text)
		require.NoError(t, err)
		require.Equal(t, want.UTC().Truncate(time.Microsecond), e.Time)
	}
	const before = `,"correlationid":"c","time":"2026-03-14T12:00:00Z","datacontenttype":`
	for text, want := range map[string]string{
		"application/json": "application/json", "Application/JSON; charset=UTF-8": "application/json",
		"application/vnd.x+json": "application/vnd.x+json",
	} {
		e, _, report, err := cloudevents.ToEnvelope(event(t, before+`"`+text+`"`), receivedAt)
		require.NoError(t, err)
		require.Equal(t, text != want, len(report) == 1, text)
		require.Equal(t, want, e.DataContentType)
	}
	for _, text := range []string{"text/json", "application/json; charset=latin1", "application/json; profile=x"} {
		_, _, _, err := cloudevents.ToEnvelope(event(t, before+`"`+text+`"`), receivedAt)
		fault, ok := fieldError(err)
		require.True(t, ok, text)
		require.Equal(t, "datacontenttype", fault.Field)
	}
}

func TestTheActorComesFromActorElseFromAuthtypeAndAuthid(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		more    string
		actor   envelope.Actor
		unknown int
		dropped []string
	}{
		{"", "", 0, nil},
		{`,"actor":"user:42"`, "user:42", 0, nil},
		{`,"actor":"user:a:b","authid":"a:b","authtype":"user"`, "user:a:b", 0, nil},
		{`,"authtype":"service","authid":"maskin"`, "service:maskin", 0, nil},
		{`,"actor":"user:42","authtype":"system"`, "user:42", 0, []string{"authtype"}},
		{`,"actor":"user:42","authid":"43"`, "user:42", 0, []string{"authid"}},
		{`,"actor":"user:42","authid":42`, "user:42", 0, []string{"authid"}},
		{`,"authtype":"unauthenticated"`, "", 1, nil},
		{`,"authtype":"service_account","authid":"x"`, "", 2, nil},
		{`,"authtype":"user","authid":42`, "", 2, nil},
	} {
		e, _, report, err := cloudevents.ToEnvelope(event(t, test.more), receivedAt)
		require.NoError(t, err, test.more)
		require.Equal(t, test.actor, e.Actor, test.more)
		require.Equal(t, test.dropped, report.Dropped(), test.more)
		unknown := 0
		for range e.Unknown() {
			unknown++
		}
		require.Equal(t, test.unknown, unknown, test.more)
	}
}

func TestExtensionsBecomeUnknownFieldsByteByByte(t *testing.T) {
	t.Parallel()
	e, _, _, err := cloudevents.ToEnvelope(event(t, `,"partitionkey":"a\/b","n":-7,"flag":true,"gone":null,"empty":""`), receivedAt)
	require.NoError(t, err)
	encoded, err := e.Encode()
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(encoded), `"data":{},"partitionkey":"a\/b","n":-7,"flag":true,"empty":""}`), string(encoded))
}

func TestATraceContextOfAnEventIsCarriedOverOrReported(t *testing.T) {
	t.Parallel()
	_, h, report, err := cloudevents.ToEnvelope(event(t, `,"traceparent":"x","tracestate":"a=1"`), receivedAt)
	require.NoError(t, err)
	require.Equal(t, []string{"traceparent", "tracestate"}, report.Dropped())
	require.NotContains(t, h, "traceparent")
	require.NotContains(t, h, "tracestate")
}

func TestAForeignEventIsNoEnvelopeAndAllReasonsAreTold(t *testing.T) {
	t.Parallel()
	ce, err := cloudevents.Decode(nil, []byte(`{"specversion":"1.0","id":"A234","source":"https://example.com/x",`+
		`"type":"com.example.happened","tenantid":"","correlationid":"a b","causationid":7,"data":[1]}`))
	require.NoError(t, err, "it is a CloudEvent all the same")
	require.JSONEq(t, "[1]", string(ce.Data()))

	e, _, _, err := cloudevents.ToEnvelope(ce, receivedAt)
	require.Nil(t, e)
	require.ErrorIs(t, err, envelope.ErrMalformed)
	for _, name := range []string{
		"id", "source", "type", "subject", "dataschema", "tenant_id", "correlation_id", "causation_id", "data",
	} {
		require.ErrorContains(t, err, "envelope: "+name+": ")
	}
	require.NotContains(t, err.Error(), "example.com", "no error holds a value")

	ce, err = cloudevents.Decode(nil, []byte(strings.Replace(minimal, `,"data":{}`, "}", 1)))
	require.NoError(t, err)
	require.Nil(t, ce.Data())
	_, _, _, err = cloudevents.ToEnvelope(ce, receivedAt)
	require.ErrorContains(t, err, "envelope: data: is required")
}
