package envelope_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

func TestHeaderTextIsSortedLines(t *testing.T) {
	t.Parallel()
	h := envelope.Header{"tenant-id": {"t"}, "Dv-Site": {"osl1"}, "X-Correlation-Id": {"c d: e"}}
	text := envelope.MarshalHeader(h)
	require.Equal(t, "Dv-Site: osl1\r\nX-Correlation-Id: c d: e\r\ntenant-id: t\r\n", text)
	got, err := envelope.UnmarshalHeader(text)
	require.NoError(t, err)
	require.Equal(t, h, got)
}

func TestEmptyHeaderIsEmptyText(t *testing.T) {
	t.Parallel()
	require.Empty(t, envelope.MarshalHeader(nil))
	h, err := envelope.UnmarshalHeader("")
	require.NoError(t, err)
	require.Empty(t, h)
}

func TestHeadersReadBackDoNotShareTheirValues(t *testing.T) {
	t.Parallel()
	h, err := envelope.UnmarshalHeader("a: 1\r\nb: 2\r\n")
	require.NoError(t, err)
	h["a"] = append(h["a"], "more")
	require.Equal(t, "2", h.Get("b"))
}

// badHeaders lists single headers that must not be published.
var badHeaders = map[string]envelope.Header{
	"must have a name of letters, digits and !#$%&'*+-.^_`|~":                {"a b": {"x"}},
	"must have exactly one value":                                            {"a": {"x", "y"}},
	"must have a value of visible ASCII, with spaces inside it at most":      {"a": {"x\r\nb: y"}},
	"must not be set: names in Nats- steer the server":                       {"Nats-Rollup": {"all"}},
	"must not end in Nats-Msg-Id: old servers take it for that header":       {"Dv-nats-msg-id": {"x"}},
	"must be spelled tenant-id":                                              {"Tenant-Id": {"x"}},
	"must be spelled Dv-Original-Sequence":                                   {"dv-original-sequence": {"x"}},
	"must have exactly one value ":                                           {"a": {}},
	"must have a name of letters, digits and !#$%&'*+-.^_`|~ ":               {"": {"x"}},
	"must have a name of letters, digits and !#$%&'*+-.^_`|~  ":              {"a:": {"x"}},
	"must have a name of letters, digits and !#$%&'*+-.^_`|~   ":             {"a\r\nb": {"x"}},
	"must have a name of letters, digits and !#$%&'*+-.^_`|~    ":            {"\u212aelvin": {"x"}},
	"must have a value of visible ASCII, with spaces inside it at most ":     {"a": {""}},
	"must have a value of visible ASCII, with spaces inside it at most  ":    {"a": {" x"}},
	"must have a value of visible ASCII, with spaces inside it at most   ":   {"a": {"x "}},
	"must have a value of visible ASCII, with spaces inside it at most    ":  {"a": {"ø"}},
	"must have a value of visible ASCII, with spaces inside it at most     ": {"a": {"x\ty"}},
	"must not be set: names in Nats- steer the server ":                      {"nats-msg-id": {"x"}},
	"must not be set: names in Nats- steer the server  ":                     {"NATS-TTL": {"1s"}},
}

func TestBadHeadersAreRefusedAndNeverWritten(t *testing.T) {
	t.Parallel()
	for reason, h := range badHeaders {
		err := h.Validate()
		fault, ok := errors.AsType[*envelope.FieldError](err)
		require.True(t, ok, "%v", h)
		require.Equal(t, strings.TrimSpace(reason), fault.Reason)
		h["Dv-Site"] = []string{"osl1"}
		require.Equal(t, "Dv-Site: osl1\r\n", envelope.MarshalHeader(h))
	}
}

func TestHeaderBlockIsBounded(t *testing.T) {
	t.Parallel()
	many := envelope.Header{}
	for i := range 32 {
		many[fmt.Sprintf("x-%02d", i)] = []string{"v"}
	}
	require.NoError(t, many.Validate())
	got, err := envelope.UnmarshalHeader(envelope.MarshalHeader(many))
	require.NoError(t, err)
	require.Equal(t, many, got)

	many["x-32"] = []string{"v"}
	require.EqualError(t, many.Validate(), "envelope: header: holds more than 32 names")
	_, err = envelope.UnmarshalHeader(envelope.MarshalHeader(many))
	require.EqualError(t, err, "envelope: header line 33: is one too many: at most 32 names")

	fits := envelope.Header{"a": {strings.Repeat("x", 8<<10-len("a: \r\n"))}}
	require.NoError(t, fits.Validate())
	_, err = envelope.UnmarshalHeader(envelope.MarshalHeader(fits))
	require.NoError(t, err)
	fits["a"][0] += "x"
	require.EqualError(t, fits.Validate(), "envelope: header: is longer than 8 KiB")
	_, err = envelope.UnmarshalHeader(envelope.MarshalHeader(fits))
	require.EqualError(t, err, "envelope: header: is longer than 8 KiB")
}

func TestHeaderValidateReportsAllInOrder(t *testing.T) {
	t.Parallel()
	h := envelope.Header{"b": {"1"}, "B": {"2"}, "Nats-X": {"1"}, "a": {}, strings.Repeat("ø", 50): {"x"}}
	require.Equal(t, []string{
		"header Nats-X: must not be set: names in Nats- steer the server",
		"header a: must have exactly one value",
		"header b: comes in more than one case",
		"header ????????????????????????????????...: must have a name of letters, digits and !#$%&'*+-.^_`|~",
	}, faults(h.Validate()))
}

func TestHeaderTextIsReadStrictly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: 1":                         "line 1: does not end in CR LF",
		"a: 1\n":                       "line 1: does not end in CR LF",
		"a:1\r\n":                      "line 1: has no colon and space behind the name",
		"\r\n":                         "line 1: has no colon and space behind the name",
		"a: 1\r\n\r\n":                 "line 2: has no colon and space behind the name",
		"NATS/1.0\r\na: 1\r\n":         "line 1: has no colon and space behind the name",
		": 1\r\n":                      "line 1: must have a name of letters, digits and !#$%&'*+-.^_`|~",
		"a : 1\r\n":                    "line 1: must have a name of letters, digits and !#$%&'*+-.^_`|~",
		"b: 1\r\na: 2\r\n":             "line 2: is out of place: names must ascend, each but once",
		"a: 1\r\na: 1\r\n":             "line 2: is out of place: names must ascend, each but once",
		"A: 1\r\na: 2\r\n":             "line 2: comes in more than one case",
		"a: \r\n":                      "line 1: must have a value of visible ASCII, with spaces inside it at most",
		"a: x\ny\r\n":                  "line 1: must have a value of visible ASCII, with spaces inside it at most",
		"Tenant-Id: x\r\n":             "line 1: must be spelled tenant-id",
		"a: 1\r\nNats-Rollup: all\r\n": "line 2: must not be set: names in Nats- steer the server",
	} {
		h, err := envelope.UnmarshalHeader(text)
		require.Nil(t, h, "%q", text)
		require.EqualError(t, err, "envelope: header "+want, "%q", text)
	}
}
