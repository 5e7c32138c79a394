package envelope_test

import (
	"errors"
	"net/http"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

// TestHeadersProjectTheEnvelope states the wire names once more by hand: a
// renamed constant must not go unnoticed (requirement X1).
func TestHeadersProjectTheEnvelope(t *testing.T) {
	t.Parallel()
	m := envelope.Message{Envelope: event(t, nil), Traceparent: traceparent}
	require.Equal(t, envelope.Header{
		"Nats-Msg-Id":      {"01936f2e-1111-7222-8333-444455556666"},
		"X-Correlation-Id": {"01936f2e-0000-7222-8333-444455556666"},
		"X-Causation-Id":   {"01936f2e-0001-7222-8333-444455556666"},
		"X-Event-Version":  {"1"},
		"tenant-id":        {"tenant-42"},
		"Dv-Type":          {"maskin.server.provisioned"},
		"Dv-Source":        {"maskin"},
		"traceparent":      {traceparent},
		"trace-id":         {traceID},
	}, m.Header())
}

func TestAbsentFieldsHaveNoHeader(t *testing.T) {
	t.Parallel()
	m := envelope.Message{Traceparent: "nonsense", Envelope: event(t, func(e *envelope.Envelope) {
		e.TenantID, e.CausationID = "", ""
	})}
	for _, name := range []string{
		envelope.HeaderTenantID, envelope.HeaderCausationID, envelope.HeaderTraceparent, envelope.HeaderTraceID,
	} {
		require.NotContains(t, m.Header(), name)
	}
}

func TestHeadersDoNotShareTheirValues(t *testing.T) {
	t.Parallel()
	h := envelope.Message{Envelope: event(t, nil), Traceparent: traceparent}.Header()
	want := envelope.Message{Envelope: event(t, nil), Traceparent: traceparent}.Header()
	for name := range h {
		h[name] = append(h[name], "more")
		want[name] = []string{want.Get(name), "more"}
	}
	require.Equal(t, want, h)
}

func TestHeaderGetIsExact(t *testing.T) {
	t.Parallel()
	h := envelope.Header{"A": {"1", "2"}, "B": {}}
	require.Equal(t, "1", h.Get("A"))
	require.Empty(t, h.Get("a"))
	require.Empty(t, h.Get("B"))
	require.Empty(t, envelope.Header(nil).Get("A"))
}

func TestCheckHeaderAcceptsItsOwnAndForeignHeaders(t *testing.T) {
	t.Parallel()
	e := event(t, nil)
	own := envelope.Message{Envelope: e, Traceparent: traceparent}.Header()
	own[envelope.HeaderSite] = []string{"osl1"}
	require.NoError(t, e.CheckHeader(own))
	require.NoError(t, e.CheckHeader(nil))
	require.NoError(t, e.CheckHeader(envelope.Header{
		"Nats-Expected-Stream": {"DV_MASKIN_EVT"}, "X-Other": {"a", "b"}, "x-other": {"c"}, "Dv-Type": {},
		"correlation-id": {e.CorrelationID}, "Correlation-Id": {e.CorrelationID, e.CorrelationID},
	}))
	platform := event(t, func(e *envelope.Envelope) { e.TenantID = "" })
	require.NoError(t, platform.CheckHeader(envelope.Header{"tenant-id": {""}}))
}

func TestCheckHeaderRefusesContradictions(t *testing.T) {
	t.Parallel()
	const (
		other   = "says something else than the envelope"
		cased   = "is spelled in another case: readers would disagree whether it counts"
		doubled = "comes more than once: readers would disagree which one counts"
	)
	for _, c := range []struct {
		header envelope.Header
		field  string
		reason string
	}{
		{envelope.Header{"Nats-Msg-Id": {"x"}}, "Nats-Msg-Id", other},
		{envelope.Header{"X-Correlation-Id": {"x"}}, "X-Correlation-Id", other},
		{envelope.Header{"correlation-id": {"x"}}, "correlation-id", other},
		{envelope.Header{"CORRELATION-ID": {"x"}}, "correlation-id", other},
		{envelope.Header{"X-Causation-Id": {"x"}}, "X-Causation-Id", other},
		{envelope.Header{"X-Event-Version": {"2"}}, "X-Event-Version", other},
		{envelope.Header{"X-Event-Version": {"01"}}, "X-Event-Version", other},
		{envelope.Header{"tenant-id": {"evil"}}, "tenant-id", other},
		{envelope.Header{"tenant-id": {""}}, "tenant-id", other},
		{envelope.Header{"tenant-id": {"Tenant-42"}}, "tenant-id", other},
		{envelope.Header{"Dv-Type": {"maskin.server.removed"}}, "Dv-Type", other},
		{envelope.Header{"Dv-Source": {"nett"}}, "Dv-Source", other},
		{envelope.Header{"Tenant-Id": {"tenant-42"}}, "tenant-id", cased},
		{envelope.Header{"TENANT-ID": {"tenant-42"}}, "tenant-id", cased},
		{envelope.Header{"nats-msg-id": {"x"}}, "Nats-Msg-Id", cased},
		{envelope.Header{"Traceparent": {traceparent}}, "traceparent", cased},
		{envelope.Header{"dv-letter-id": {"l"}}, "Dv-Letter-Id", cased},
		{envelope.Header{"tenant-id": {"tenant-42", "tenant-42"}}, "tenant-id", doubled},
		{envelope.Header{"Dv-Site": {"osl1", "osl2"}}, "Dv-Site", doubled},
	} {
		err := event(t, nil).CheckHeader(c.header)
		fault, ok := errors.AsType[*envelope.MismatchError](err)
		require.True(t, ok, "%v", c.header)
		require.Equal(t, &envelope.MismatchError{Field: c.field, Reason: c.reason}, fault)
		require.EqualError(t, err, "envelope: "+c.field+": "+c.reason)
	}
}

// Dead letters are grouped by the text of their error, and a map has no order.
func TestCheckHeaderReportsAllOnceAndInOrder(t *testing.T) {
	t.Parallel()
	h := envelope.Header{
		"tenant-id": {"x"}, "Tenant-id": {"x"}, "TENANT-id": {"x"}, "Dv-Type": {"x"}, "Nats-Msg-Id": {"x"}, "trace-id": {"a", "b"},
	}
	for range 20 {
		require.Equal(t, []string{
			"Dv-Type: says something else than the envelope",
			"Nats-Msg-Id: says something else than the envelope",
			"tenant-id: is spelled in another case: readers would disagree whether it counts",
			"tenant-id: says something else than the envelope",
			"trace-id: comes more than once: readers would disagree which one counts",
		}, faults(event(t, nil).CheckHeader(h)))
	}
}

// A letter and its replay are published under ids of their own.
func TestLettersAndReplaysHaveTheirOwnMessageID(t *testing.T) {
	t.Parallel()
	e := event(t, nil)
	const letter = "l0123456789012345678901234567890123456789"
	for id, ok := range map[string]bool{
		letter + "/d1": true, letter + "/r12": true, letter + "/": false, letter: false, e.ID: false, "l/d1": false,
	} {
		err := e.CheckHeader(envelope.Header{"Nats-Msg-Id": {id}, "Dv-Letter-Id": {letter}})
		require.Equal(t, ok, err == nil, id)
	}
	require.Error(t, e.CheckHeader(envelope.Header{"Nats-Msg-Id": {letter + "/d1"}}))
}

func TestOriginIsReadFromHeadersInAnyCase(t *testing.T) {
	t.Parallel()
	web := http.Header{}
	web.Set("x-correlation-id", "c-1")
	web.Set("x-causation-id", "c-0")
	web.Set("tenant-id", "tenant-42")
	web.Set("traceparent", traceparent)
	web.Set("actor", "operator:me")
	require.Equal(t, envelope.Origin{
		CorrelationID: "c-1", CausationID: "c-0", TenantID: "tenant-42", Traceparent: traceparent,
	}, envelope.OriginFromHeader(envelope.Header(web)))
	require.Zero(t, envelope.OriginFromHeader(nil))
}

func TestOriginFromHeaderTakesNoBadOrAmbiguousValue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header envelope.Header
		want   envelope.Origin
	}{
		"older name":          {envelope.Header{"Correlation-ID": {"c"}}, envelope.Origin{CorrelationID: "c"}},
		"own name goes first": {envelope.Header{"correlation-id": {"old"}, "X-Correlation-Id": {"new"}}, envelope.Origin{CorrelationID: "new"}},
		"twice the same":      {envelope.Header{"tenant-id": {"a", "a"}, "Tenant-Id": {"a"}}, envelope.Origin{TenantID: "a"}},
		"two values":          {envelope.Header{"tenant-id": {"a", "b"}}, envelope.Origin{}},
		"two spellings":       {envelope.Header{"tenant-id": {"a"}, "Tenant-Id": {"b"}}, envelope.Origin{}},
		"injection":           {envelope.Header{"tenant-id": {"a\r\nb"}}, envelope.Origin{}},
		"empty":               {envelope.Header{"tenant-id": {""}, "X-Correlation-Id": {}}, envelope.Origin{}},
		"bad trace":           {envelope.Header{"traceparent": {"00-0-0-0"}}, envelope.Origin{}},
	} {
		require.Equal(t, c.want, envelope.OriginFromHeader(c.header), name)
	}
}
