package cloudevents_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

// generator makes envelopes of every shape that an event can express, and some
// with fields that none can.
type generator struct{ *rand.Rand }

// pick returns one of some texts.
func (g generator) pick(all ...string) string { return all[g.IntN(len(all))] }

// id returns a text by the rules of ids.
func (g generator) id() string {
	return g.pick("a", "Z9", "tenant-42", "a/b+c=d@e", "0:1._", strings.Repeat("x", 128))
}

// text returns a text without what CloudEvents forbids.
func (g generator) text(most int) string {
	var b strings.Builder
	alphabet := []rune(`ab "%\/:;,é€😀{}[]'` + "\u2028\u00a0")
	for range 1 + g.IntN(most) {
		b.WriteRune(alphabet[g.IntN(len(alphabet))])
	}
	return b.String()
}

// envelope makes one; clean says that an event can express all of it.
func (g generator) envelope(t *testing.T, clean bool) *envelope.Envelope {
	t.Helper()
	members := map[string]any{
		"specversion": "1.0", "id": fmt.Sprintf("%08x-1111-7222-8333-444455556666", g.Uint32()|1),
		"source": g.pick("maskin", "objekt", "nett"), "subject": g.text(40), "correlation_id": g.id(),
		"time":            time.UnixMicro(g.Int64N(1 << 52)).UTC().Format(time.RFC3339Nano),
		"datacontenttype": g.pick("application/json", "application/vnd.x+json"),
		"data":            map[string]any{"a": g.text(9), "b": g.IntN(9), "c": []any{nil, true, 1.5}},
	}
	members["type"] = g.pick("maskin.server.provisioned", "task.done", "nett.port.open.requested")
	members["dataschema"] = fmt.Sprintf("urn:dataverket:schema:%s:v%d", members["type"], 1+g.IntN(65535))
	for name, value := range map[string]any{
		"tenant_id": g.id(), "project_id": g.id(), "environment_id": g.id(), "datacenter_id": g.id(), "causation_id": g.id(),
		"actor": g.pick("user", "service", "operator", "system") + ":" + g.pick("42", "a:b", "x@y/z"), "visibility": "external",
		"x": g.text(9), "partitionkey": g.text(9), "n": int32(g.Uint32()), "flag": g.IntN(2) == 0, "empty": "",
	} {
		if g.IntN(2) == 0 {
			members[name] = value
		}
	}
	if !clean {
		members[g.pick("tenantid", "a_b", "traceparent", "Upper")] = g.text(3)
		members["deep"] = map[string]any{"a": 1}
	}
	data, err := json.Marshal(members)
	require.NoError(t, err)
	e, err := envelope.Decode(data)
	require.NoError(t, err, string(data))
	return e
}

// header makes the trace context of a message, or none.
func (g generator) header() envelope.Header {
	switch g.IntN(3) {
	case 0:
		return nil
	case 1:
		return envelope.Header{"traceparent": {traceparent}}
	}
	return envelope.Header{"traceparent": {traceparent}, "tracestate": {"a=1"}}
}

// rounds is how many envelopes each property is tried with.
const rounds = 500

func TestAnEnvelopeComesBackEqualFromItsEvent(t *testing.T) {
	t.Parallel()
	for seed := range uint64(rounds) {
		g := generator{rand.New(rand.NewPCG(seed, 0))}
		e, h := g.envelope(t, true), g.header()
		ce, report, err := cloudevents.FromEnvelope(e, h)
		require.NoError(t, err)
		require.Empty(t, report)

		back, header, report, err := cloudevents.ToEnvelope(overStructured(t, ce), receivedAt)
		require.NoError(t, err)
		require.Empty(t, report)
		require.Equal(t, e, back, "seed %d", seed)
		for _, name := range []string{"traceparent", "tracestate"} {
			require.Equal(t, h.Get(name), header.Get(name))
		}

		back, _, report, err = cloudevents.ToEnvelope(overBinary(t, ce), receivedAt)
		require.NoError(t, err)
		require.Empty(t, report)
		requireEqualTexts(t, e, back)
	}
}

// requireEqualTexts compares two envelopes as binary mode keeps them: unknown
// fields as texts in any order.
func requireEqualTexts(t *testing.T, want, got *envelope.Envelope) {
	t.Helper()
	texts := func(e *envelope.Envelope) map[string]string {
		all := map[string]string{}
		for name, raw := range e.Unknown() {
			all[name] = string(raw)
			if raw[0] == '"' {
				var text string
				require.NoError(t, json.Unmarshal(raw, &text))
				all[name] = text
			}
		}
		return all
	}
	require.Equal(t, texts(want), texts(got))
	require.Equal(t, known(t, want), known(t, got))
}

// known returns an envelope without its unknown fields.
func known(t *testing.T, e *envelope.Envelope) envelope.Envelope {
	t.Helper()
	encoded, err := e.Encode()
	require.NoError(t, err)
	var all map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(encoded, &all))
	for name := range e.Unknown() {
		delete(all, name)
	}
	encoded, err = json.Marshal(all)
	require.NoError(t, err)
	plain, err := envelope.Decode(encoded)
	require.NoError(t, err)
	plain.Data = append(json.RawMessage{}, e.Data...)
	return *plain
}

// What an event cannot express is named, and everything else comes back.
func TestWhatIsLostIsExactlyWhatTheReportNames(t *testing.T) {
	t.Parallel()
	for seed := range uint64(rounds) {
		e := generator{rand.New(rand.NewPCG(seed, 1))}.envelope(t, false)
		ce, report, err := cloudevents.FromEnvelope(e, nil)
		require.NoError(t, err)
		back, _, _, err := cloudevents.ToEnvelope(overStructured(t, ce), receivedAt)
		require.NoError(t, err)
		lost := map[string]bool{}
		for name := range e.Unknown() {
			lost[name] = true
		}
		for name := range back.Unknown() {
			require.True(t, lost[name], "%s was invented", name)
			delete(lost, name)
		}
		require.Len(t, report.Dropped(), len(lost))
		for _, name := range report.Dropped() {
			require.True(t, lost[name], name)
		}
		require.Equal(t, known(t, e), known(t, back))
	}
}
