package cloudevents_test

import (
	"fmt"
	"testing"
	"time"

	"codeberg.org/dataverket/messaging/cloudevents"
	"codeberg.org/dataverket/messaging/envelope"
	"github.com/stretchr/testify/require"
)

// nativeHead is an envelope with every field, but for the brace that ends it.
const nativeHead = `{"specversion":"1.0","id":"01936f2e-1111-7222-8333-444455556666","type":"maskin.server.provisioned",` +
	`"source":"maskin","subject":"rack \"12\" Bodø","time":"2026-03-14T12:00:00.123456Z","datacontenttype":"application/json",` +
	`"dataschema":"urn:dataverket:schema:maskin.server.provisioned:v1","tenant_id":"tenant-42","project_id":"project-7",` +
	`"environment_id":"prod","datacenter_id":"osl1","actor":"user:42","correlation_id":"c-1","causation_id":"c-0",` +
	`"visibility":"external","data":{ "hostname" : "web-1", "size":1.50 }`

// structured is the same as a CloudEvent.
const structured = `{"specversion":"1.0","id":"01936f2e-1111-7222-8333-444455556666","type":"maskin.server.provisioned",` +
	`"source":"maskin","subject":"rack \"12\" Bodø","time":"2026-03-14T12:00:00.123456Z","datacontenttype":"application/json",` +
	`"dataschema":"urn:dataverket:schema:maskin.server.provisioned:v1","tenantid":"tenant-42","projectid":"project-7",` +
	`"environmentid":"prod","datacenterid":"osl1","actor":"user:42","authtype":"user","authid":"42","correlationid":"c-1",` +
	`"causationid":"c-0","visibility":"external","traceparent":"` + traceparent + `","tracestate":"a=1,b=2",` +
	`"data":{ "hostname" : "web-1", "size":1.50 }}`

// minimal is what an event must have to become an envelope, but for the brace.
const minimal = `{"specversion":"1.0","id":"01936f2e-1111-7222-8333-444455556666","type":"maskin.server.provisioned",` +
	`"source":"maskin","subject":"server/9a1","dataschema":"urn:dataverket:schema:maskin.server.provisioned:v1","data":{}`

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// traceHeader is constant: the header of a message in a trace.
var traceHeader = envelope.Header{"traceparent": {traceparent}, "tracestate": {"a=1,b=2"}, "Dv-Site": {"osl1"}}

// receivedAt is constant: when events come.
var receivedAt = time.Date(2026, 3, 14, 13, 0, 0, 987654321, time.FixedZone("CET", 3600))

// native decodes an envelope with the given members behind those of nativeHead.
func native(tb testing.TB, more string) *envelope.Envelope {
	tb.Helper()
	e, err := envelope.Decode([]byte(nativeHead + more + "}"))
	require.NoError(tb, err)
	return e
}

// event decodes a structured event: minimal with the given members.
func event(tb testing.TB, more string) cloudevents.Event {
	tb.Helper()
	e, err := cloudevents.Decode(nil, []byte(minimal+more+"}"))
	require.NoError(tb, err)
	return e
}

// outcomes writes a report as "name outcome", without the reasons.
func outcomes(r cloudevents.Report) []string {
	var lines []string
	for _, note := range r {
		lines = append(lines, fmt.Sprintf("%s %s", note.Name, note.Outcome))
	}
	return lines
}

// overStructured sends an event structured and reads it again.
func overStructured(tb testing.TB, e cloudevents.Event) cloudevents.Event {
	tb.Helper()
	h, body, err := e.EncodeStructured()
	require.NoError(tb, err)
	again, err := cloudevents.Decode(h, body)
	require.NoError(tb, err)
	return again
}

// overBinary sends an event binary and reads it again.
func overBinary(tb testing.TB, e cloudevents.Event) cloudevents.Event {
	tb.Helper()
	h, body, err := e.EncodeBinary()
	require.NoError(tb, err)
	again, err := cloudevents.Decode(h, body)
	require.NoError(tb, err)
	return again
}
