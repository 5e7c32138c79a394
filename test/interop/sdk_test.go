package interop_test

import (
	"context"
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/protocol/nats_jetstream/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/client"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
)

// bridge is a broker with a stream of CloudEvents, and the SDK at both ends of it.
type bridge struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	received chan event.Event
	sender   *nats_jetstream.Sender
}

// The stream of the bridge and what is published there.
const (
	bridgeStream  = "BRIDGE"
	bridgeSubject = "BRIDGE.events"
)

// newBridge starts broker, stream, and a consumer as the SDK's documentation has
// it, which ends with the test.
func newBridge(t *testing.T) *bridge {
	t.Helper()
	conn := dvtest.NATS(t)
	b := &bridge{nc: conn.NATS(), js: conn.JetStream(), received: make(chan event.Event, 16)}
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: bridgeStream, Subjects: []string{bridgeStream + ".*"}})
	require.NoError(t, err)
	b.sender, err = nats_jetstream.NewSenderFromConn(b.nc, bridgeStream, bridgeSubject, nil)
	require.NoError(t, err)
	receiver, err := nats_jetstream.NewConsumerFromConn(b.nc, bridgeStream, bridgeSubject, nil, []nats.SubOpt{nats.DeliverAll()})
	require.NoError(t, err)
	c, err := client.New(receiver, client.WithPollGoroutines(1))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() {
		stopped <- c.StartReceiver(ctx, func(e event.Event) { b.received <- e })
	}()
	t.Cleanup(func() {
		stop()
		<-stopped
	})
	return b
}

// publish sends what a bridge of ours made.
func (b *bridge) publish(t *testing.T, h envelope.Header, body []byte) {
	t.Helper()
	_, err := b.js.PublishMsg(t.Context(), &nats.Msg{Subject: bridgeSubject, Header: nats.Header(h), Data: body})
	require.NoError(t, err)
}

// send has the SDK send an event in one mode.
func (b *bridge) send(t *testing.T, mode func(context.Context) context.Context, e event.Event) {
	t.Helper()
	require.NoError(t, e.Validate())
	require.NoError(t, b.sender.Send(mode(t.Context()), binding.ToMessage(&e)))
}

// stored returns the newest message of the stream as a bridge of ours gets it.
func (b *bridge) stored(t *testing.T) (envelope.Header, []byte) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), bridgeStream)
	require.NoError(t, err)
	m, err := s.GetLastMsgForSubject(t.Context(), bridgeSubject)
	require.NoError(t, err)
	return envelope.Header(m.Header), m.Data
}

// next returns what the SDK hands to its handler.
func (b *bridge) next(t *testing.T) event.Event {
	t.Helper()
	select {
	case e := <-b.received:
		return e
	case <-time.After(soon):
		require.Fail(t, "the SDK handed on no event")
		return event.Event{}
	}
}

// modes is constant: how both sides write an event.
var modes = map[string]struct {
	ours   func(cloudevents.Event) (envelope.Header, []byte, error)
	theirs func(context.Context) context.Context
}{
	"structured": {cloudevents.Event.EncodeStructured, binding.WithForceStructured},
	"binary":     {cloudevents.Event.EncodeBinary, binding.WithForceBinary},
}

func TestTheSDKReadsOurMessagesInBothModes(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	for name, mode := range modes {
		m := newMessage(t)
		ours, report, err := cloudevents.FromEnvelope(m.Envelope, m.Header())
		require.NoError(t, err)
		require.Empty(t, report)
		h, body, err := mode.ours(ours)
		require.NoError(t, err)
		b.publish(t, h, body)

		got := b.next(t)
		require.NoError(t, got.Validate(), name)
		e := m.Envelope
		require.Equal(t, []string{"1.0", e.ID, e.Type, "maskin", e.Subject, "application/json", e.DataSchema}, []string{
			got.SpecVersion(), got.ID(), got.Type(), got.Source(), got.Subject(), got.DataContentType(), got.DataSchema(),
		}, name)
		require.True(t, e.Time.Equal(got.Time()))
		require.JSONEq(t, `{"hostname":"web-1"}`, string(got.Data()))
		want := map[string]any{
			"tenantid": "tenant-42", "projectid": "p1", "environmentid": "prod", "datacenterid": "osl1",
			"actor": "user:42", "authtype": "user", "authid": "42", "visibility": "external", "traceparent": traceparent,
			"correlationid": e.CorrelationID, "causationid": e.CausationID, "partitionkey": "rack/12",
			"n": int32(7), "flag": true,
		}
		if name == "binary" { // which has texts only
			want["n"], want["flag"] = "7", "true"
		}
		require.Equal(t, want, got.Extensions(), name)
	}
}

// platformEvent is an event of a program that brings the SDK and speaks the
// platform's names.
func platformEvent(t *testing.T) event.Event {
	t.Helper()
	e := event.New()
	e.SetID("01936f2e-1111-7222-8333-444455556666")
	e.SetType("maskin.server.provisioned")
	e.SetSource("maskin")
	e.SetSubject("server/é 1 100%")
	e.SetTime(time.Date(2026, 3, 14, 12, 0, 0, 123456000, time.UTC))
	e.SetDataSchema("urn:dataverket:schema:maskin.server.provisioned:v1")
	require.NoError(t, e.SetData("application/json", serverV1{Hostname: "web-1"}))
	for name, value := range map[string]any{
		"tenantid": "tenant-42", "actor": "user:42", "authtype": "user", "authid": "42", "correlationid": "c-1",
		"traceparent": traceparent, "tracestate": "a=1", "partitionkey": `rack "12"`,
	} {
		e.SetExtension(name, value)
	}
	return e
}

func TestAnEventOfTheSDKIsAnEnvelopeAndComesBackToTheSDKAsItWas(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	for name, mode := range modes {
		sent := platformEvent(t)
		if name == "structured" {
			sent.SetExtension("n", -7)
			sent.SetExtension("flag", true)
		}
		b.send(t, mode.theirs, sent)
		require.Equal(t, sent.ID(), b.next(t).ID())

		ours, err := cloudevents.Decode(b.stored(t))
		require.NoError(t, err, name)
		e, h, report, err := cloudevents.ToEnvelope(ours, time.Now())
		require.NoError(t, err)
		require.Empty(t, report)
		require.NoError(t, e.CheckHeader(h))
		require.Equal(t, []string{sent.Subject(), "tenant-42", "user:42", "c-1"},
			[]string{e.Subject, e.TenantID, string(e.Actor), e.CorrelationID})
		require.Equal(t, sent.Time(), e.Time)

		back, report, err := cloudevents.FromEnvelope(e, h)
		require.NoError(t, err)
		require.Empty(t, report)
		header, body, err := back.EncodeStructured() // the mode in which the SDK loses nothing
		require.NoError(t, err)
		b.publish(t, header, body)
		got := b.next(t)
		require.Equal(t, sent.String(), got.String(), name)
		require.True(t, maps.Equal(sent.Extensions(), got.Extensions()))
		require.Equal(t, sent.Data(), got.Data())
	}
}

// The SDK writes what our writer wrote, and reads what it would have written.
func TestTheSDKWritesOurEventsAgainAsTheyWere(t *testing.T) {
	t.Parallel()
	for _, more := range []string{"", `,"x":"","y":"\u2028 \\ \" é","z":-2147483648,"off":false`} {
		m := newMessage(t)
		encoded, err := m.Envelope.Encode()
		require.NoError(t, err)
		e, err := envelope.Decode(append(encoded[:len(encoded)-1], more+"}"...))
		require.NoError(t, err)
		ours, _, err := cloudevents.FromEnvelope(e, m.Header())
		require.NoError(t, err)
		_, body, err := ours.EncodeStructured()
		require.NoError(t, err)

		var theirs event.Event
		require.NoError(t, json.Unmarshal(body, &theirs))
		again, err := json.Marshal(theirs)
		require.NoError(t, err)
		require.JSONEq(t, string(body), string(again))
		ours, err = cloudevents.Decode(nil, again)
		require.NoError(t, err)
		_, _, report, err := cloudevents.ToEnvelope(ours, time.Now())
		require.NoError(t, err)
		require.Empty(t, report)
	}
}

// Bytes become base64 in structured mode, even if they are JSON. We say so.
func TestBytesOfTheSDKAreRefusedStructuredAndReadBinary(t *testing.T) {
	t.Parallel()
	b := newBridge(t)
	sent := platformEvent(t)
	require.NoError(t, sent.SetData("application/json", []byte(`{"hostname":"web-1"}`)))
	b.send(t, binding.WithForceStructured, sent)
	_, err := cloudevents.Decode(b.stored(t))
	require.ErrorIs(t, err, cloudevents.ErrMalformed)
	require.ErrorContains(t, err, "data_base64: is binary data")

	b.send(t, binding.WithForceBinary, sent)
	e, err := cloudevents.Decode(b.stored(t))
	require.NoError(t, err)
	require.JSONEq(t, `{"hostname":"web-1"}`, string(e.Data()))

	require.NoError(t, sent.SetData("application/json", json.RawMessage(`{"hostname":"web-1"}`)))
	b.send(t, binding.WithForceStructured, sent)
	_, err = cloudevents.Decode(b.stored(t))
	require.NoError(t, err)
}

// docs/CLOUDEVENTS.md says what a team that brings the SDK has to know. If one of
// these changes, so must the page.
func TestWhatTheDocumentSaysOfTheSDKIsStillSo(t *testing.T) {
	t.Parallel()
	b := newBridge(t)

	// Native messages, which are none of its events, it drops in silence.
	m := newMessage(t)
	encoded, err := m.Envelope.Encode()
	require.NoError(t, err)
	b.publish(t, m.Header(), encoded)

	// It does not decode the values of headers.
	m.Envelope.Subject = "rack 12"
	ours, _, err := cloudevents.FromEnvelope(m.Envelope, nil)
	require.NoError(t, err)
	h, body, err := ours.EncodeBinary()
	require.NoError(t, err)
	b.publish(t, h, body)
	require.Equal(t, "rack%2012", b.next(t).Subject())

	// Headers in another case are none to it; to us they are.
	other := envelope.Header{}
	for name, values := range h {
		other["C"+name[1:]] = values
	}
	b.publish(t, other, body)
	_, err = cloudevents.Decode(b.stored(t))
	require.NoError(t, err)

	// What it sends carries no Nats-Msg-Id.
	b.send(t, binding.WithForceStructured, platformEvent(t))
	require.Equal(t, platformEvent(t).ID(), b.next(t).ID(), "of the two before nothing reached the handler")
	header, _ := b.stored(t)
	require.Empty(t, header)
}
