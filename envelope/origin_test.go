package envelope_test

import (
	"context"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

func TestNewOriginStartsAWorkflow(t *testing.T) {
	t.Parallel()
	a, b := envelope.NewOrigin("user:42", "tenant-42"), envelope.NewOrigin("user:42", "tenant-42")
	require.NotEqual(t, a.CorrelationID, b.CorrelationID)
	require.Len(t, a.CorrelationID, 36)
	a.CorrelationID = ""
	require.Equal(t, envelope.Origin{Actor: "user:42", TenantID: "tenant-42"}, a)
}

func TestOriginTravelsInContext(t *testing.T) {
	t.Parallel()
	_, ok := envelope.OriginFrom(t.Context())
	require.False(t, ok)
	inner := context.WithoutCancel(envelope.WithOrigin(t.Context(), testOrigin))
	got, ok := envelope.OriginFrom(inner)
	require.True(t, ok)
	require.Equal(t, testOrigin, got)
	got, _ = envelope.OriginFrom(envelope.WithOrigin(inner, envelope.Origin{}))
	require.Zero(t, got, "the innermost counts")
}

func TestDeliveryPassesItsOriginOn(t *testing.T) {
	t.Parallel()
	d := &envelope.Delivery{Envelope: event(t, nil), Header: envelope.Header{"traceparent": {traceparent}}}
	got, ok := envelope.OriginFrom(d.Context(t.Context()))
	require.True(t, ok)
	require.Equal(t, envelope.Origin{
		CorrelationID: d.Envelope.CorrelationID, CausationID: d.Envelope.ID, Actor: "user:42", TenantID: "tenant-42",
		Traceparent: traceparent,
	}, got)

	d = &envelope.Delivery{Envelope: event(t, func(e *envelope.Envelope) { e.TenantID = "" }), Header: envelope.Header{"traceparent": {"x"}}}
	got, _ = envelope.OriginFrom(d.Context(t.Context()))
	require.True(t, got.PlatformScope)
	require.Empty(t, got.TenantID)
	require.Empty(t, got.Traceparent)
}

func TestTraceIDIsDerivedFromTraceparent(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		traceparent, traceparent[:53] + "00", "01" + traceparent[2:], "cc" + traceparent[2:] + "-what-ever",
	} {
		id, ok := envelope.TraceID(good)
		require.True(t, ok, good)
		require.Equal(t, traceID, id)
	}
	zeros := strings.Repeat("0", 32)
	for _, bad := range []string{
		"", traceparent[:54], traceparent + "0", traceparent + "-00", "ff" + traceparent[2:], "0g" + traceparent[2:],
		"01" + traceparent[2:] + "x", strings.ToUpper(traceparent), " " + traceparent, traceparent + " ",
		strings.Replace(traceparent, traceID, zeros, 1), strings.Replace(traceparent, "00f067aa0ba902b7", zeros[:16], 1),
		strings.Replace(traceparent, "4bf9", "4bg9", 1), strings.Replace(traceparent, "00f0", "00F0", 1),
		traceparent[:53] + "0x", strings.ReplaceAll(traceparent, "-", "_"),
		traceparent[:35] + "_" + traceparent[36:], traceparent[:52] + "_" + traceparent[53:], traceparent[:2] + "_" + traceparent[3:],
	} {
		id, ok := envelope.TraceID(bad)
		require.False(t, ok, bad)
		require.Empty(t, id)
	}
}

func TestOriginIsValidatedWithoutAMessage(t *testing.T) {
	t.Parallel()
	good := envelope.Origin{CorrelationID: "c-1", CausationID: "m-1", Actor: "user:ola", TenantID: "t-1", Traceparent: "whatever"}
	require.NoError(t, good.Validate())
	require.NoError(t, envelope.Origin{CorrelationID: "c", Actor: "system:timer", PlatformScope: true}.Validate())

	err := envelope.Origin{}.Validate()
	for _, field := range []string{"Origin.CorrelationID", "Origin.Actor", "Origin.TenantID"} {
		require.ErrorContains(t, err, "envelope: "+field+": is required")
	}
	err = envelope.Origin{CorrelationID: "secret value", CausationID: "secret\n", Actor: "secret", TenantID: "secret value", PlatformScope: true}.Validate()
	for _, field := range []string{"Origin.CorrelationID", "Origin.CausationID", "Origin.Actor", "Origin.TenantID", "Origin.PlatformScope"} {
		require.ErrorContains(t, err, "envelope: "+field+": ")
	}
	require.NotContains(t, err.Error(), "secret")
}
