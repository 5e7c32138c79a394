package cloudevents_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

func TestAnEventIsStructuredByItsContentTypeOrWithoutCeHeaders(t *testing.T) {
	t.Parallel()
	for _, h := range []envelope.Header{
		nil,
		{"content-type": {"application/cloudevents+json"}},
		{"Content-Type": {"Application/CloudEvents+JSON ; charset=utf-8"}},
		{"Content-Type": {"application/json"}},
		{"CONTENT-TYPE": {"application/cloudevents+json"}, "ce-id": {"01936f2e-1111-7222-8333-444455556666"}, "Ce-Source": {"maskin"}},
		{"X-Other": {"a", "b"}, "ce-nothing": {}},
	} {
		e, err := cloudevents.Decode(h, []byte(minimal+"}"))
		require.NoError(t, err, "%v", h)
		source, ok := e.Attribute("source")
		require.True(t, ok)
		require.Equal(t, "maskin", source)
	}
}

// An SDK that looks at the headers first would read another tenant.
func TestHeadersThatContradictAStructuredEventAreRefused(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ce-tenantid", "Ce-Id"} {
		h := envelope.Header{"content-type": {"application/cloudevents+json"}, name: {"other"}}
		_, err := cloudevents.Decode(h, []byte(minimal+`,"tenantid":"mine"}`))
		require.ErrorIs(t, err, cloudevents.ErrMalformed)
		require.ErrorContains(t, err, "is another one in the header")
	}
}

// binaryHeader returns the header of a good binary event with a change.
func binaryHeader(name string, values ...string) envelope.Header {
	h := envelope.Header{"Ce-Specversion": {"1.0"}, "ce-id": {"1"}, "CE-SOURCE": {"s"}, "Ce-Type": {"t"}}
	h[name] = values
	return h
}

func TestValuesOfHeadersAreDecodedOnceOrTakenAsTheyAre(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"plain": "plain", "": "", "Euro%20%E2%82%AC": "Euro €", "%e2%82%ac": "€", "server/é 1": "server/é 1",
		"100%": "100%", "100%25": "100%", "%2525": "%25", "5% off %20": "5% off %20", "%zz": "%zz", "%2": "%2",
		`"quoted %41 \"x\" \\"`: `quoted A "x" \`, `"`: `"`, `""`: "", `"a"b"`: `"a"b"`, `"a\"`: `"a\"`, `a"b"`: `a"b"`,
	} {
		e, err := cloudevents.Decode(binaryHeader("cE-Note", value), nil)
		require.NoError(t, err, value)
		got, ok := e.Attribute("note")
		require.True(t, ok)
		require.Equal(t, want, got, value)
	}
}

func TestBinaryEventsAreRefusedWhereReadersDisagree(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		h    envelope.Header
		body string
		want string
	}{
		"two values":       {binaryHeader("ce-note", "a", "a"), "{}", "note: comes more than once"},
		"two spellings":    {binaryHeader("ce-ID", "1"), "{}", "id: comes more than once"},
		"two modes":        {envelope.Header{"content-type": {"application/json"}, "Content-Type": {"application/cloudevents+json"}}, minimal + "}", "content-type: comes more than once"},
		"twice structured": {envelope.Header{"ce-source": {"maskin"}, "Ce-Source": {"maskin"}}, minimal + "}", "source: comes more than once"},
		"overlong UTF-8":   {binaryHeader("ce-note", "%C0%A0"), "{}", "note: must be valid UTF-8"},
		"raw bytes":        {binaryHeader("ce-note", "\xff%"), "{}", "note: must be valid UTF-8"},
		"control":          {binaryHeader("ce-note", "a%0D%0Ab"), "{}", "note: must not hold control"},
		"underscore":       {binaryHeader("ce-tenant_id", "x"), "{}", `tenant_id: is no attribute name`},
		"no name":          {binaryHeader("ce-", "x"), "{}", `"": is no attribute name`},
		"data":             {binaryHeader("ce-data", "x"), "{}", `is no attribute name: it is reserved`},
		"twice by another": {envelope.Header{"ce-datacontenttype": {"a/json"}, "content-type": {"a/json"}}, "", "datacontenttype: comes more than once"},
		"not JSON":         {binaryHeader("content-type", "text/plain"), "x", "datacontenttype: is not JSON"},
		"no JSON":          {binaryHeader("content-type", "application/json"), "x", "data: is not acceptable JSON: byte 0"},
		"lone surrogate":   {binaryHeader("content-type", "application/json"), `"\ud800"`, "data: is not acceptable JSON"},
		"no version":       {envelope.Header{"ce-id": {"1"}, "ce-source": {"s"}, "ce-type": {"t"}}, "{}", "specversion: is required"},
		"old version":      {binaryHeader("Ce-Specversion", "0.3"), "{}", "specversion: must be 1.0"},
		"batch":            {binaryHeader("content-type", "application/cloudevents-batch+json"), "[]", "content-type: is that of a batch"},
	} {
		_, err := cloudevents.Decode(test.h, []byte(test.body))
		require.ErrorIs(t, err, cloudevents.ErrMalformed, name)
		require.ErrorContains(t, err, test.want, name)
	}
}

func TestStructuredEventsAreReadStrictly(t *testing.T) {
	t.Parallel()
	for more, want := range map[string]string{
		`,"id":"2"`: "name comes twice", `,"ID":"2"`: "equals a known name but for case", `,"\u0069d":"2"`: "name comes twice",
		`,"note":1,"Note":1`: "name comes twice, if only in another case", `,"DATA":1`: "but for case",
		`,"tenant_id":"x"`: `tenant_id: is no attribute name`, `,"note":{}`: "note: must be a string, an integer or a boolean",
		`,"note":2147483648`: "note: must be an integer", `,"note":1.5`: "note: must be an integer",
		`,"note":"a\u0001"`: "note: must not hold control", `,"note":"\ufffe"`: "note: must not hold nonchar",
		`,"data_base64":"e30="`: "data_base64: is binary data", `,"time":""`: "time: is empty", `,"time":"now"`: "time: must be RFC 3339",
		`,"time":5`: "time: must be a string, is a number", `,"datacontenttype":"text/xml"`: "datacontenttype: is not JSON",
		`} {`: "text goes on behind the value", `,"note":"` + "\x01" + `"`: "control character",
		`,"data2":` + strings.Repeat("[", 70) + strings.Repeat("]", 70): "more than 64 levels",
	} {
		_, err := cloudevents.Decode(nil, []byte(minimal+more+"}"))
		require.ErrorIs(t, err, cloudevents.ErrMalformed, more)
		require.ErrorContains(t, err, want, more)
	}
	_, err := cloudevents.Decode(nil, []byte(`{"specversion":null,"id":"","note_x":1}`))
	fault, ok := errors.AsType[*cloudevents.AttributeError](err)
	require.True(t, ok)
	require.Equal(t, "specversion", fault.Name)
	require.Len(t, strings.Split(err.Error(), "\n"), 5, "all faults at once: %v", err)
}

func TestEventsBeyondTheLimitsAreRefused(t *testing.T) {
	t.Parallel()
	_, err := cloudevents.Decode(nil, make([]byte, cloudevents.MaxSize+1))
	require.ErrorIs(t, err, cloudevents.ErrTooLarge)
	_, err = cloudevents.Decode(binaryHeader("ce-note", strings.Repeat("x", 64<<10)), nil)
	require.ErrorIs(t, err, cloudevents.ErrTooLarge)
	h := binaryHeader("ce-note", "x")
	for i := range 123 {
		h[fmt.Sprintf("ce-x%d", i)] = []string{"1"}
	}
	_, err = cloudevents.Decode(h, nil)
	require.ErrorIs(t, err, cloudevents.ErrTooLarge)
	require.ErrorIs(t, err, cloudevents.ErrMalformed)
	delete(h, "ce-x0")
	_, err = cloudevents.Decode(h, nil)
	require.NoError(t, err)

	// What was read may still be too large to write: 64 KiB of headers are.
	large := `{"a":"` + strings.Repeat("x", cloudevents.MaxSize-len(`{"a":""}`)) + `"}`
	e, err := cloudevents.Decode(binaryHeader("content-type", "application/json"), []byte(large))
	require.NoError(t, err)
	_, _, err = e.EncodeStructured()
	require.ErrorIs(t, err, cloudevents.ErrTooLarge)
}

func TestAttributesOfABinaryEventHaveOneOrder(t *testing.T) {
	t.Parallel()
	e, err := cloudevents.Decode(binaryHeader("ce-alpha", "1"), []byte(`{}`))
	require.NoError(t, err)
	var names []string
	for name := range e.Attributes() {
		names = append(names, name)
	}
	require.Equal(t, []string{"specversion", "id", "type", "source", "alpha"}, names)
	for name := range e.Attributes() {
		require.Equal(t, "specversion", name)
		break // leaving early is allowed
	}
	_, ok := e.Attribute("beta")
	require.False(t, ok)
}

func TestAReportIsOneLineWhateverTheNames(t *testing.T) {
	t.Parallel()
	_, report, err := cloudevents.FromEnvelope(native(t, `,"a\nb":1,"`+strings.Repeat("x", 100)+`_":1`), nil)
	require.NoError(t, err)
	require.Equal(t, `"a\nb" dropped: is no attribute name: those are letters a to z and digits; `+strings.Repeat("x", 64)+
		`... dropped: is no attribute name: those are letters a to z and digits`, report.String())
	require.Empty(t, cloudevents.Report(nil).String())
}
