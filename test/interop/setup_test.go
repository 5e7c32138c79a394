package interop_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Waits: until what must happen has happened.
const (
	soon = time.Minute
	tick = 10 * time.Millisecond
)

// serverV1 is the payload of the tests.
type serverV1 struct {
	Hostname string `json:"hostname"`
}

// provisioned is constant: the message of the tests.
var provisioned = envelope.MustEvent[serverV1](envelope.EventSpec{
	Service: subject.Maskin, Entity: "server", Verb: "provisioned", Version: 1,
})

// traceparent is the trace that messages of the tests are made in.
const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// newMessage makes a message with every field.
func newMessage(t *testing.T) envelope.Message {
	t.Helper()
	origin := envelope.NewOrigin("user:42", "tenant-42")
	origin.CausationID, origin.Traceparent = "01936f2e-0001-7222-8333-444455556666", traceparent
	m, err := envelope.New(envelope.WithOrigin(t.Context(), origin), subject.Maskin,
		provisioned.New("server/9a1", serverV1{Hostname: "web-1"}, envelope.Project("p1"), envelope.Environment("prod"),
			envelope.Datacenter("osl1"), envelope.ExternallyVisible()))
	require.NoError(t, err)
	encoded, err := m.Envelope.Encode()
	require.NoError(t, err)
	// A producer of a later version knows more fields.
	encoded = append(encoded[:len(encoded)-1], `,"partitionkey":"rack/12","n":7,"flag":true}`...)
	m.Envelope, err = envelope.Decode(encoded)
	require.NoError(t, err)
	return m
}
