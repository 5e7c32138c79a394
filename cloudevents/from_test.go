package cloudevents_test

import (
	"fmt"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

// These bytes are what other programs read: a change of them is a change of the
// wire.
func TestAnEnvelopeIsWrittenAsAStructuredEvent(t *testing.T) {
	t.Parallel()
	e, report, err := cloudevents.FromEnvelope(native(t, ""), traceHeader)
	require.NoError(t, err)
	require.Empty(t, report)
	h, body, err := e.EncodeStructured()
	require.NoError(t, err)
	require.Equal(t, structured, string(body))
	require.Equal(t, envelope.Header{"content-type": {"application/cloudevents+json"}}, h)
}

func TestAnEnvelopeIsWrittenAsABinaryEvent(t *testing.T) {
	t.Parallel()
	e, _, err := cloudevents.FromEnvelope(native(t, `,"x9":7,"flag":true,"odd":"100% \"é\" \\"`), traceHeader)
	require.NoError(t, err)
	h, body, err := e.EncodeBinary()
	require.NoError(t, err)
	require.JSONEq(t, `{"hostname":"web-1","size":1.50}`, string(body))
	require.Equal(t, envelope.Header{
		"ce-specversion": {"1.0"}, "ce-id": {"01936f2e-1111-7222-8333-444455556666"},
		"ce-type": {"maskin.server.provisioned"}, "ce-source": {"maskin"}, "ce-subject": {"rack%20%2212%22%20Bod%C3%B8"},
		"ce-time": {"2026-03-14T12:00:00.123456Z"}, "content-type": {"application/json"},
		"ce-dataschema": {"urn:dataverket:schema:maskin.server.provisioned:v1"},
		"ce-tenantid":   {"tenant-42"}, "ce-projectid": {"project-7"}, "ce-environmentid": {"prod"},
		"ce-datacenterid": {"osl1"}, "ce-actor": {"user:42"}, "ce-authtype": {"user"}, "ce-authid": {"42"},
		"ce-correlationid": {"c-1"}, "ce-causationid": {"c-0"}, "ce-visibility": {"external"},
		"ce-traceparent": {traceparent}, "ce-tracestate": {"a=1,b=2"},
		"ce-x9": {"7"}, "ce-flag": {"true"}, "ce-odd": {"100%25%20%22%C3%A9%22%20\\"},
	}, h)
}

func TestAnUnknownFieldIsWrittenOrReported(t *testing.T) {
	t.Parallel()
	for member, written := range map[string]bool{
		`"x":""`: true, `"x":"a\/b"`: true, `"x":false`: true, `"x":-2147483648`: true, `"x9":2147483647`: true,
		`"partitionkey":"rack/12"`: true, `"a23456789012345678901":1`: true,
		`"x":2147483648`: false, `"x":-0`: false, `"x":1.0`: false, `"x":1e3`: false, `"x":null`: false, `"x":{}`: false, `"x":[]`: false,
		`"x":"a\nb"`: false, `"x":"\u0085"`: false, `"x":"\ufffe"`: false, `"x":"\ud83f\udfff"`: false, `"x":"\ufdd0"`: false,
		`"x_y":1`: false, `"X":1`: false, `"":1`: false, `"é":1`: false, `"data_base64":"eA=="`: false,
		// These have a meaning: on the way back they would be what the envelope does
		// not say.
		`"tenantid":"other"`: false, `"projectid":"p"`: false, `"correlationid":"c"`: false, `"causationid":"c"`: false,
		`"environmentid":"e"`: false, `"datacenterid":"d"`: false, `"traceparent":"` + traceparent + `"`: false,
		`"tracestate":"a=1"`: false, `"authtype":"system"`: false, `"authid":"1"`: false,
	} {
		e, report, err := cloudevents.FromEnvelope(native(t, ","+member), nil)
		require.NoError(t, err, member)
		_, body, err := e.EncodeStructured()
		require.NoError(t, err)
		require.Equal(t, written, strings.Contains(string(body), member), member)
		require.Len(t, report, map[bool]int{true: 0, false: 1}[written], member)
		if !written {
			name, _, _ := strings.Cut(member[1:], `"`)
			require.Equal(t, []string{name}, report.Dropped())
			require.NotEmpty(t, report[0].Reason)
		}
	}
}

// Of an envelope without an actor, an event must not get one.
func TestAuthFieldsOfAnEnvelopeWithoutActorDoNotBecomeOne(t *testing.T) {
	t.Parallel()
	head := strings.Replace(nativeHead, `"actor":"user:42",`, "", 1)
	for more, dropped := range map[string][]string{
		`,"authtype":"user","authid":"42"`:       {"authtype", "authid"},
		`,"authtype":"app_user","authid":"42"`:   nil,
		`,"authtype":"unauthenticated"`:          nil,
		`,"authid":"42"`:                         nil,
		`,"authtype":"user","authid":42`:         nil,
		`,"authtype":"user","authid":"is wrong"`: nil,
	} {
		e, err := envelope.Decode([]byte(head + more + "}"))
		require.NoError(t, err)
		ce, report, err := cloudevents.FromEnvelope(e, nil)
		require.NoError(t, err)
		require.Equal(t, dropped, report.Dropped(), more)
		again, _, report, err := cloudevents.ToEnvelope(overStructured(t, ce), receivedAt)
		require.NoError(t, err)
		require.Empty(t, report)
		require.Empty(t, again.Actor, more)
	}
}

func TestALaterVersionOfTheEnvelopeIsWrittenAs10AndReported(t *testing.T) {
	t.Parallel()
	e := native(t, "")
	e.SpecVersion = "1.7"
	ce, report, err := cloudevents.FromEnvelope(e, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"specversion changed"}, outcomes(report))
	version, _ := ce.Attribute("specversion")
	require.Equal(t, "1.0", version)
}

func TestATraceContextThatIsNoneIsReported(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		h    envelope.Header
		want []string
	}{
		{envelope.Header{"traceparent": {traceparent}}, nil},
		{envelope.Header{"traceparent": {"x"}, "tracestate": {"a=1"}}, []string{"traceparent dropped", "tracestate dropped"}},
		{envelope.Header{"tracestate": {"a=1"}}, []string{"tracestate dropped"}},
		{envelope.Header{"traceparent": {traceparent}, "tracestate": {"a=\x01"}}, []string{"tracestate dropped"}},
		{envelope.Header{"traceparent": {traceparent}, "tracestate": {" a=1"}}, []string{"tracestate dropped"}},
		{envelope.Header{"traceparent": {traceparent}, "tracestate": {strings.Repeat("a", 513)}}, []string{"tracestate dropped"}},
		{envelope.Header{"traceparent": {"01" + traceparent[2:] + "-" + strings.Repeat("a", 300)}}, []string{"traceparent dropped"}},
	} {
		_, report, err := cloudevents.FromEnvelope(native(t, ""), test.h)
		require.NoError(t, err)
		require.Equal(t, test.want, outcomes(report), "%v", test.h)
	}
}

func TestWhatCannotBeAnEventIsRefused(t *testing.T) {
	t.Parallel()
	_, _, err := cloudevents.FromEnvelope(&envelope.Envelope{}, nil)
	_, isField := fieldError(err)
	require.True(t, isField)

	e := native(t, "")
	e.Subject = "a\ufffeb"
	_, _, err = cloudevents.FromEnvelope(e, nil)
	require.EqualError(t, err, "cloudevents: from envelope: cloudevents: subject: must not hold noncharacters of Unicode")

	var many strings.Builder
	for i := range 111 { // 128 members are the most that an envelope has
		fmt.Fprintf(&many, `,"x%d":1`, i)
	}
	_, _, err = cloudevents.FromEnvelope(native(t, many.String()), nil)
	require.ErrorIs(t, err, cloudevents.ErrTooLarge)
	_, _, err = cloudevents.FromEnvelope(native(t, many.String()[:strings.Index(many.String(), `,"x109"`)]), nil)
	require.NoError(t, err)
}

func TestTheLargestEnvelopeBecomesAStructuredEvent(t *testing.T) {
	t.Parallel()
	e := native(t, "")
	encoded, err := e.Encode()
	require.NoError(t, err)
	e.Data = []byte(`{"a":"` + strings.Repeat("x", envelope.MaxSize-len(encoded)+len(e.Data)-len(`{"a":""}`)) + `"}`)
	encoded, err = e.Encode()
	require.NoError(t, err)
	require.Len(t, encoded, envelope.MaxSize)
	h := envelope.Header{"traceparent": {traceparent}, "tracestate": {strings.Repeat("a", 512)}}
	ce, report, err := cloudevents.FromEnvelope(e, h)
	require.NoError(t, err)
	require.Empty(t, report)
	again, _, _, err := cloudevents.ToEnvelope(overStructured(t, ce), receivedAt)
	require.NoError(t, err)
	require.Equal(t, e, again)
}

func TestHeadersThatNoServerTakesAreNotWritten(t *testing.T) {
	t.Parallel()
	ce, _, err := cloudevents.FromEnvelope(native(t, `,"x":"`+strings.Repeat("é", 1400)+`"`), nil)
	require.NoError(t, err)
	_, _, err = ce.EncodeBinary()
	require.ErrorIs(t, err, cloudevents.ErrTooLarge)
	require.ErrorContains(t, err, "send it structured")
	overStructured(t, ce)
}
