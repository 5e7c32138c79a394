package envelope_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"github.com/stretchr/testify/require"
)

// rules lists, for every field, values on both sides of each border.
var rules = map[string]struct {
	set       func(*envelope.Envelope, string)
	good, bad []string
}{
	"specversion": {
		func(e *envelope.Envelope, v string) { e.SpecVersion = v },
		[]string{"1.0", "1.1", "1.10", "1.99999999"},
		[]string{"", "1", "1.", "1.x", "1.0.1", "2.0", "01.0", "1.-1", " 1.0", "1.0 ", "1.999999999"},
	},
	"id": {
		func(e *envelope.Envelope, v string) { e.ID = v },
		[]string{
			"01936f2e-1111-7222-8333-444455556666", "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
			"00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-fffffffffffe",
		},
		[]string{
			"", "01936f2e111172228333444455556666", "01936F2E-1111-7222-8333-444455556666",
			"01936f2e-1111-7222-8333-44445555666", "01936f2e-1111-7222-8333-4444555566667",
			"g1936f2e-1111-7222-8333-444455556666", "01936f2e-1111-7222-8333-44445555666g",
			"01936f2e-111g-7222-8333-444455556666", "01936f2e-1111-722g-8333-444455556666",
			"01936f2e-1111-7222-833g-444455556666", "01936f2e+1111-7222-8333-444455556666",
			"01936f2e-1111+7222-8333-444455556666", "01936f2e-1111-7222+8333-444455556666",
			"01936f2e-1111-7222-8333+444455556666", "urn:uuid:01936f2e-1111-7222-8333-4444",
			"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		},
	},
	"type": {
		func(e *envelope.Envelope, v string) {
			e.Type, e.DataSchema = v, "urn:dataverket:schema:"+v+":v1"
		},
		[]string{
			"maskin.provisioned", "maskin.server.provision.requested", "task.created", "nett.a.b.c.d.e", "nett.a1._",
			"objekt." + strings.Repeat("a", 255-len("objekt.")),
		}[:4],
		[]string{
			"", "maskin", "task", "maskin.", ".maskin", "maskin..provisioned", "Maskin.server", "maskin.Server", "maskin.1st",
			"maskin._x", "maskin.ser-ver", "maskin.server ", "maskin.sørver", "banana.server", "nett.a.b.c.d.e.f", "tasks.created",
			"objekt." + strings.Repeat("a", 256-len("objekt.")),
		},
	},
	"subject": {
		func(e *envelope.Envelope, v string) { e.Subject = v },
		[]string{"a", " ", "rack 12/ø", `"\`, strings.Repeat("x", 256), strings.Repeat("é", 128), "\u2028"},
		[]string{"", strings.Repeat("x", 257), "a\x00", "a\n", "\x1f", "\x7f", "a\u0085", "é\x07", "\xff", "é\xed\xa0\x80"},
	},
	"datacontenttype": {
		func(e *envelope.Envelope, v string) { e.DataContentType = v },
		[]string{"application/json", "application/vnd.dv+json", "a/+json", "image/svg+xml+json"}[:2],
		[]string{
			"", "json", "application/", "/json", "application/xml", "application/json;charset=utf-8", "Application/JSON",
			"application/json ", "+json", "a b/c+json", "application/" + strings.Repeat("a", 127) + "+json", "a/b/c+json", "-a/b+json",
		},
	},
	"dataschema": {
		func(e *envelope.Envelope, v string) { e.DataSchema = v },
		[]string{
			"urn:dataverket:schema:maskin.server.provisioned:v1", "urn:dataverket:schema:maskin.server.provisioned:v65535",
		},
		[]string{
			"", "v1", "urn:dataverket:schema:", "urn:dataverket:schema:maskin.server.provisioned",
			"urn:dataverket:schema:maskin.server.provisioned:v", "urn:dataverket:schema:maskin.server.provisioned:v0",
			"urn:dataverket:schema:maskin.server.provisioned:v01", "urn:dataverket:schema:maskin.server.provisioned:v+1",
			"urn:dataverket:schema:maskin.server.provisioned:v-1", "urn:dataverket:schema:maskin.server.provisioned:v65536",
			"urn:dataverket:schema:maskin.server.provisioned:v1 ", "urn:dataverket:schema:maskin.server.provisioned:1",
			"urn:dataverket:schema:maskin.server.provisioned2:v1", "urn:dataverket:schema:maskin.server:v1",
			"URN:dataverket:schema:maskin.server.provisioned:v1",
		},
	},
	"tenant_id": {
		func(e *envelope.Envelope, v string) { e.TenantID = v },
		[]string{"", "a", "A", "0", "a._:@/+=-", strings.Repeat("x", 128)},
		[]string{" ", ".a", "-a", "a b", "a\r\nb", "a,b", "a;b", "a%", "é", "a\x00", strings.Repeat("x", 129), "a*", "a>"},
	},
	"project_id":     {func(e *envelope.Envelope, v string) { e.ProjectID = v }, []string{"", "p"}, []string{"p\n"}},
	"environment_id": {func(e *envelope.Envelope, v string) { e.EnvironmentID = v }, []string{"", "p"}, []string{"p\n"}},
	"datacenter_id":  {func(e *envelope.Envelope, v string) { e.DatacenterID = v }, []string{"", "p"}, []string{"p\n"}},
	"causation_id":   {func(e *envelope.Envelope, v string) { e.CausationID = v }, []string{"", "p"}, []string{"p\n"}},
	"correlation_id": {func(e *envelope.Envelope, v string) { e.CorrelationID = v }, []string{"p"}, []string{"", "p\n"}},
	"actor": {
		func(e *envelope.Envelope, v string) { e.Actor = envelope.Actor(v) },
		[]string{
			"", "user:42", "service:maskin", "operator:ola@dv.no", "system:gc", "user:a:b",
			"user:" + strings.Repeat("x", 155),
		},
		[]string{
			"user", "user:", ":42", "robot:42", "User:42", "user :42", "user: 42", "user:4 2", "user:42\n",
			"user:" + strings.Repeat("x", 156),
		},
	},
	"visibility": {
		func(e *envelope.Envelope, v string) { e.Visibility = envelope.Visibility(v) },
		[]string{"", "external"}, []string{"internal", "public", "External", " "},
	},
	"data": {
		func(e *envelope.Envelope, v string) { e.Data = json.RawMessage(v) },
		[]string{`{}`, ` {"a":1} `, `{"a":1,"a":2,"A":3}`},
		[]string{
			"", " ", `[]`, `"AAEC"`, `1`, `true`, `null`, `{`, `{}{}`, `{"a":"\u0000"}`, `{"a":"` + "\xff" + `"}`,
			`{"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
		},
	},
}

func TestEveryFieldHasItsBorders(t *testing.T) {
	t.Parallel()
	for field, rule := range rules {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			for _, value := range rule.good {
				e := event(t, func(e *envelope.Envelope) { rule.set(e, value) })
				require.NoError(t, e.Validate(), "%q", value)
				encoded, err := e.Encode()
				require.NoError(t, err, "%q", value)
				_, err = envelope.Decode(encoded)
				require.NoError(t, err, "%q", value)
			}
			for _, value := range rule.bad {
				err := event(t, func(e *envelope.Envelope) { rule.set(e, value) }).Validate()
				fault, ok := errors.AsType[*envelope.FieldError](err)
				require.True(t, ok, "%q", value)
				require.Equal(t, field, fault.Field, "%q", value)
				require.Len(t, faults(err), 1, "%q", value)
			}
		})
	}
}

// A writer of another language sends the same values; reading must not differ
// from validating by hand.
func TestReadingRefusesWhatValidateRefuses(t *testing.T) {
	t.Parallel()
	for field, rule := range rules {
		if field == "data" || field == "visibility" {
			continue // their Go values are not their wire values
		}
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			for _, value := range rule.bad {
				if !utf8.ValidString(value) {
					continue // encoding/json cannot write it
				}
				wire := map[string]any{}
				require.NoError(t, json.Unmarshal(golden(t, "valid", "v1", "event.json"), &wire))
				if wire[field] = value; field == "type" {
					wire["dataschema"] = "urn:dataverket:schema:" + value + ":v1"
				}
				encoded, err := json.Marshal(wire)
				require.NoError(t, err)
				_, err = envelope.Decode(encoded)
				require.ErrorIs(t, err, envelope.ErrMalformed, "%q", value)
			}
		})
	}
}

func TestSourceMustBeKnown(t *testing.T) {
	t.Parallel()
	for _, s := range subject.Services() {
		require.NoError(t, event(t, func(e *envelope.Envelope) { e.Source = s }).Validate())
	}
	err := event(t, func(e *envelope.Envelope) { e.Source = 0 }).Validate()
	require.Equal(t, []string{"source: must be a known service: sentral identitet maskin plattform tjeneste objekt nett"}, faults(err))
}

func TestTimeOfValidate(t *testing.T) {
	t.Parallel()
	for want, moment := range map[string]time.Time{
		"time: is required":                        {},
		"time: is outside the years 0000 to 9999":  time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		"time: is outside the years 0000 to 9999 ": time.Date(-1, 12, 31, 0, 0, 0, 0, time.UTC),
	} {
		err := event(t, func(e *envelope.Envelope) { e.Time = moment }).Validate()
		require.Equal(t, []string{strings.TrimSpace(want)}, faults(err))
	}
}

func TestTimesOnTheWire(t *testing.T) {
	t.Parallel()
	decode := func(text string) (time.Time, error) {
		data := strings.Replace(string(golden(t, "valid", "v1", "event.json")), "2026-03-14T12:00:00.123456Z", text, 1)
		e, err := envelope.Decode([]byte(data))
		if err != nil {
			return time.Time{}, err
		}
		return e.Time, nil
	}
	for text, nanos := range map[string]int{
		"2026-03-14T12:00:00Z": 0, "2026-03-14T12:00:00.5Z": 5e8, "2026-03-14T12:00:00.999999999Z": 999999000,
		"2026-03-14T12:00:00.000000000001Z": 0,
	} {
		got, err := decode(text)
		require.NoError(t, err, text)
		require.Equal(t, time.Date(2026, 3, 14, 12, 0, 0, nanos, time.UTC), got)
	}
	for _, text := range []string{
		"2026-03-14T12:00:00", "2026-03-14T12:00:00+00:00", "2026-03-14T12:00:00z", "2026-03-14t12:00:00Z",
		"2026-03-14 12:00:00Z", "2026-03-14T12:00:00,5Z", "2026-03-14T2:00:00Z", "2026-03-14T24:00:00Z",
		"2026-03-14T23:59:60Z", "2026-02-30T12:00:00Z", "2026-03-14T12:00Z", "2026-03-14", "Z", "1773489600",
		"2026-03-14T12:00:00.Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.0000001Z", "+02026-03-14T12:00:00Z",
	} {
		_, err := decode(text)
		require.ErrorIs(t, err, envelope.ErrMalformed, text)
	}
}
