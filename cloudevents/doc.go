// Package cloudevents translates between the Dataverket envelope and CloudEvents
// 1.0, for services that bridge to an HTTP edge, another broker or a program
// that brings a CloudEvents SDK (requirement E6). Inside the platform messages
// travel as envelopes and need none of this. It does no I/O.
//
// # Usage
//
// Out, in a handler of the bridge:
//
//	event, report, err := cloudevents.FromEnvelope(m.Envelope, m.Header)
//	header, body, err := event.EncodeStructured() // or EncodeBinary
//
// In, where the edge has received headers and a body:
//
//	event, err := cloudevents.Decode(envelope.Header(request.Header), body)
//	e, header, report, err := cloudevents.ToEnvelope(event, time.Now())
//
// The envelope is encoded and published with that header on the subject that the
// bridge chose and checked ([envelope.Envelope.CheckSubject]), with an
// acknowledgement.
//
// An event whose id, type, source or schema are not names of the platform is no
// envelope, and ToEnvelope refuses it with every reason. Read what it says with
// [Event.Attribute] and [Event.Data], and send a message of your own.
//
// # What becomes what
//
// Names lose their underscores: tenant_id is tenantid, correlation_id is
// correlationid. An actor is written three times: actor, and authtype and authid
// for readers of the official extension. The trace context of the header is
// traceparent and tracestate. Unknown fields become extensions of the same name.
// docs/CLOUDEVENTS.md has the whole table.
//
// # Guarantees
//
//   - Every [Event] is valid: the required attributes are there, names are a-z and
//     0-9, values are texts, booleans or 32-bit integers, data is JSON.
//   - Nothing is lost in silence. What could not be carried over as it was stands
//     in the [Report], by name.
//   - An envelope whose report is empty comes back equal from its structured
//     event, and its data and unknown fields byte by byte. Binary mode has texts
//     only: an unknown field that was a number or a boolean comes back as a text,
//     and unknown fields in the order of their names.
//   - Nothing is invented: an unknown field that would be read as a field of the
//     envelope on the way back, such as tenantid, is not written.
//   - The same event always gives the same bytes.
//
// # Reading
//
// An event is structured if its content type is application/cloudevents+json, or
// if no header begins with ce-; else it is binary. Header names count in any
// case. Values are percent-decoded once; one that holds a % without two digits
// behind it is taken as it is, since some SDKs do not encode. JSON is read by the
// strict rules of package envelope. Where readers would disagree the event is
// refused: names that come twice in whatever case, ce- headers that contradict a
// structured event, several values of one header.
//
// Refused, too: batches, other formats than JSON, data in base64 and data that is
// not JSON. Go's SDK writes base64 when it is given bytes; give it a
// json.RawMessage.
//
// # Concurrency
//
// An [Event] is an immutable value. All functions are safe for concurrent use.
//
// # Errors
//
// What [Decode] refuses wraps [ErrMalformed], all faulty attributes at once, each
// as an [*AttributeError]; what [ToEnvelope] refuses wraps
// [envelope.ErrMalformed]. No error text and no reason holds a value.
//
// # Security
//
// A foreign event is a claim. Its source, tenantid and actor are what its sender
// wrote: the bridge lets through only what that sender was authenticated for.
// Whether an envelope may leave the platform is the edge's to ask
// ([envelope.Envelope.Visibility], requirement E8); FromEnvelope translates both
// kinds.
package cloudevents
