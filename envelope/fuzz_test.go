package envelope_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

// FuzzDecode holds decoding against encoding/json: whatever is accepted means the
// same there, is accepted again after encoding, and is then equal.
func FuzzDecode(f *testing.F) {
	for _, dir := range []string{"valid/v1", "bad"} {
		for _, name := range goldenNames(f, dir, ".json") {
			f.Add(golden(f, dir, name+".json"))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := envelope.Decode(data)
		if err != nil {
			require.ErrorIs(t, err, envelope.ErrMalformed)
			require.Nil(t, e)
			return
		}
		require.NoError(t, e.Validate(), "a decoded envelope is valid")
		requireSame(t, data, e)

		encoded, err := e.Encode()
		require.NoError(t, err)
		require.Equal(t, cap(encoded), len(encoded))
		again, err := envelope.Decode(encoded)
		require.NoError(t, err)
		require.Equal(t, e, again)
		requireSame(t, encoded, e)
		require.NoError(t, e.CheckHeader(envelope.Message{Envelope: e}.Header()))
	})
}

// requireSame compares e with what encoding/json finds in data.
func requireSame(t *testing.T, data []byte, e *envelope.Envelope) {
	t.Helper()
	var all map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &all))
	take := func(name string) (text string) {
		if raw, ok := all[name]; ok {
			require.NoError(t, json.Unmarshal(raw, &text))
			delete(all, name)
		}
		return text
	}
	for name, got := range map[string]string{
		"specversion": e.SpecVersion, "id": e.ID, "type": e.Type, "source": e.Source.String(), "subject": e.Subject,
		"datacontenttype": e.DataContentType, "dataschema": e.DataSchema, "tenant_id": e.TenantID,
		"project_id": e.ProjectID, "environment_id": e.EnvironmentID, "datacenter_id": e.DatacenterID,
		"actor": string(e.Actor), "correlation_id": e.CorrelationID, "causation_id": e.CausationID,
	} {
		require.Equal(t, take(name), got, name)
	}
	require.Equal(t, take("visibility") == "external", e.Visibility == envelope.External)
	moment, err := time.Parse(time.RFC3339, take("time"))
	require.NoError(t, err)
	require.Equal(t, moment.UTC().Truncate(time.Microsecond), e.Time)
	require.Equal(t, string(all["data"]), string(e.Data))
	delete(all, "data")

	unknown := map[string]json.RawMessage{}
	for name, value := range e.Unknown() {
		unknown[name] = value
	}
	require.Equal(t, all, unknown)
}

// FuzzTime holds the reading of times against package time, which accepts more.
func FuzzTime(f *testing.F) {
	for _, text := range []string{
		"2026-03-14T12:00:00.123456789Z", "2024-02-29T23:59:59Z", "2023-02-29T00:00:00Z", "2026-03-14T12:00:00,5Z", "",
		"0000-01-01T00:00:00.0Z", "2026-13-01T00:00:00Z", "2026-00-00T00:00:00Z", "2026-04-31T00:00:00Z",
	} {
		f.Add(text)
	}
	shape := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`)
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := envelope.ParseTime(text)
		want, err := time.Parse(time.RFC3339, text)
		require.Equal(t, err == nil && shape.MatchString(text), ok)
		if ok {
			require.Equal(t, want.Truncate(time.Microsecond), got)
		}
	})
}

// FuzzUnmarshalHeader: what is accepted is exactly what would be written, and
// nothing in it can be read in two ways.
func FuzzUnmarshalHeader(f *testing.F) {
	for _, text := range []string{
		"", "a: 1\r\n", "A: 1\r\na: 1\r\n", "Dv-Site: osl1\r\ntenant-id: t\r\n", "Nats-Msg-Id: x\r\n", "Nats-Rollup: all\r\n",
		"a: b: c\r\n", "a: 1\r\n\r\nbody", "Tenant-Id: x\r\n", "a: x\ny\r\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := envelope.UnmarshalHeader(text)
		if err != nil {
			require.Nil(t, h)
			return
		}
		require.NoError(t, h.Validate())
		require.Equal(t, text, envelope.MarshalHeader(h))
		require.Equal(t, 2*len(h), strings.Count(text, "\r")+strings.Count(text, "\n"))
	})
}

// FuzzMarshalHeader: a header that validates comes back, and no header, valid or
// not, writes anything that another one did not say.
func FuzzMarshalHeader(f *testing.F) {
	f.Add("tenant-id", "t", "Dv-Site", "osl1")
	f.Add("a", "x\r\nNats-Rollup: all", "A", "y")
	f.Add("Nats-Msg-Id", "x", "b: c\r\nd", "")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		h := envelope.Header{name1: {value1}, name2: {value2}}
		text := envelope.MarshalHeader(h)
		got, err := envelope.UnmarshalHeader(text)
		if h.Validate() == nil {
			require.NoError(t, err)
			require.Equal(t, h, got)
		}
		if err == nil {
			for name, values := range got {
				require.Equal(t, h[name], values)
			}
		}
	})
}

// FuzzCheckHeader: no header panics, and none that is accepted says something
// else under an own name in whatever case.
func FuzzCheckHeader(f *testing.F) {
	e := event(f, nil)
	own := envelope.Message{Envelope: e}.Header()
	for name := range own {
		f.Add(name, own.Get(name), "x")
		f.Add(strings.ToLower(name), own.Get(name), own.Get(name))
	}
	f.Add("correlation-id", "x", "x")
	f.Fuzz(func(t *testing.T, name, value1, value2 string) {
		for _, values := range [][]string{{value1}, {value1, value2}} {
			if e.CheckHeader(envelope.Header{name: values}) != nil {
				continue
			}
			for ownName := range own {
				if strings.EqualFold(name, ownName) {
					require.Equal(t, own[name], values, "%q", name)
				}
			}
		}
	})
}

// FuzzTraceID holds the rules of the W3C recommendation, written as patterns,
// against the reader.
func FuzzTraceID(f *testing.F) {
	for _, text := range []string{
		traceparent, traceparent + "-x", "01" + traceparent[2:] + "-x", "ff" + traceparent[2:], "", strings.ToUpper(traceparent),
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
	} {
		f.Add(text)
	}
	shape := regexp.MustCompile(`^(?s)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$`)
	f.Fuzz(func(t *testing.T, text string) {
		parts := shape.FindStringSubmatch(text)
		want := parts != nil && parts[1] != "ff" && (parts[1] != "00" || parts[4] == "") &&
			strings.Trim(parts[2], "0") != "" && strings.Trim(parts[3], "0") != ""
		id, ok := envelope.TraceID(text)
		require.Equal(t, want, ok)
		if ok {
			require.Equal(t, parts[2], id)
		}
	})
}

// FuzzNew: whatever a caller passes, New either refuses it or makes a message that
// every reader accepts and that is what was asked for.
func FuzzNew(f *testing.F) {
	f.Add("server/9a1", "web-1", "user:42", "tenant-42", "c-1", "", traceparent, "rack/1")
	f.Add("", "\x00", "robot", "a\r\nb", "", "x y", "00-", "\xff")
	f.Fuzz(func(t *testing.T, resource, host, actor, tenant, correlation, causation, trace, key string) {
		o := envelope.Origin{
			CorrelationID: correlation, CausationID: causation, Actor: envelope.Actor(actor), TenantID: tenant,
			PlatformScope: tenant == "", Traceparent: trace,
		}
		m, err := envelope.New(envelope.WithOrigin(t.Context(), o), subject.Maskin,
			provisioned.New(resource, provisionedV1{Hostname: host}, envelope.OrderingKey(key)))
		if err != nil {
			return
		}
		encoded, err := m.Envelope.Encode()
		require.NoError(t, err)
		e, err := envelope.Decode(encoded)
		require.NoError(t, err)
		require.Equal(t, m.Envelope, e)
		require.Equal(t, []string{resource, actor, tenant, correlation, causation},
			[]string{e.Subject, string(e.Actor), e.TenantID, e.CorrelationID, e.CausationID})
		require.NoError(t, e.CheckSubject(m.Subject))
		h := m.Header()
		require.NoError(t, h.Validate())
		require.NoError(t, e.CheckHeader(h))
		back, err := envelope.UnmarshalHeader(envelope.MarshalHeader(h))
		require.NoError(t, err)
		require.Equal(t, h, back)
	})
}
