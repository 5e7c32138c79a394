package cloudevents_test

import (
	"encoding/json"
	"testing"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

// FuzzDecode: what is accepted is JSON to everybody, is written as it was read in
// both modes, and becomes an envelope that comes back.
func FuzzDecode(f *testing.F) {
	f.Add("", "", "", []byte(structured))
	f.Add("content-type", "ce-id", "x", []byte(minimal+"}"))
	f.Add("ce-specversion", "Ce-Id", "1.0", []byte("{}"))
	f.Add("ce-note", "Content-Type", "application/json", []byte(" {\"a\":[1]}\n"))
	f.Add("ce-note", "ce-x", `"%C3%A9"`, []byte(minimal+`,"authtype":"user","authid":"42","n":7}`))
	f.Fuzz(func(t *testing.T, name1, name2, value string, body []byte) {
		for _, h := range []envelope.Header{
			nil, {name1: {value}, name2: {value}},
			{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"s"}, "ce-type": {"t"}, name1: {value}, name2: {value}},
		} {
			e, err := cloudevents.Decode(h, body)
			if err != nil {
				require.ErrorIs(t, err, cloudevents.ErrMalformed)
				continue
			}
			requireStable(t, e)
		}
	})
}

// requireStable holds an event against its encodings.
func requireStable(t *testing.T, e cloudevents.Event) {
	t.Helper()
	h, body, err := e.EncodeStructured()
	if err != nil {
		require.ErrorIs(t, err, cloudevents.ErrTooLarge)
		return
	}
	var all map[string]any
	require.NoError(t, json.Unmarshal(body, &all))
	for name, text := range e.Attributes() {
		if want, ok := all[name].(string); ok {
			require.Equal(t, want, text)
		}
	}
	again, err := cloudevents.Decode(h, body)
	require.NoError(t, err)
	require.Equal(t, e, again)

	if h, body, err = e.EncodeBinary(); err == nil {
		again, err = cloudevents.Decode(h, body)
		require.NoError(t, err)
		for name, text := range e.Attributes() {
			got, ok := again.Attribute(name)
			require.True(t, ok, name)
			require.Equal(t, text, got, name)
		}
	}

	n, header, _, err := cloudevents.ToEnvelope(e, receivedAt)
	if err != nil {
		require.ErrorIs(t, err, envelope.ErrMalformed)
		return
	}
	require.NoError(t, n.CheckHeader(header))
	require.NoError(t, header.Validate())
	back, report, err := cloudevents.FromEnvelope(n, header)
	if err != nil { // actor, time and the like made one attribute too many
		require.ErrorIs(t, err, cloudevents.ErrTooLarge)
		return
	}
	require.Empty(t, report, "what came from an event can go back")
	twice, _, _, err := cloudevents.ToEnvelope(back, receivedAt)
	require.NoError(t, err)
	require.Equal(t, n, twice)
}
