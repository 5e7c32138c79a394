package envelope

import (
	"bytes"
	"context"
	"strconv"
	"time"
	"unique"

	"codeberg.org/dataverket/messaging/subject"
)

// Sealed is a message in the bytes in which it is stored and published. What
// [Seal] returns is valid; a Sealed is safe for concurrent use as long as nobody
// changes Envelope.
type Sealed struct {
	// ID is the envelope's id, which is also the deduplication id, and UUID the
	// same in binary: a database reads text digit by digit.
	ID   string
	UUID [16]byte
	// Subject is where it is published; of a command to another site, where it
	// arrives.
	Subject subject.Subject
	// OrderingKey is what it keeps its order within.
	OrderingKey string
	// Header is the text that [MarshalHeader] writes.
	Header string
	// Envelope is what [Envelope.Encode] writes.
	Envelope []byte
}

// Seal turns a draft into a message and writes it: [New], [Envelope.Encode] and
// [MarshalHeader] of [Message.Header] in one, with the same result and the same
// errors. It is part of every transaction that sends a message, so it makes neither
// an [Envelope] nor a map, and writes at once what all messages of a type have in
// common. outbox.Enqueue calls it; services rarely do.
func Seal(ctx context.Context, source subject.Service, d Draft) (Sealed, error) {
	o, ok := OriginFrom(ctx)
	if err := d.refusal(source, &o, ok); err != nil {
		return Sealed{}, err
	}
	id, frame := d.messageID(), d.frame.Value()
	text, _ := id.MarshalText() // never fails
	// Written on the stack and copied, which is cheaper than to count first how
	// much it will be. What is larger finds its own place.
	var buf [2048]byte
	b, idEnd := frame.appendHeaders(buf[:0], source, text, &o)
	header := len(b)
	b = frame.appendEnvelope(b, source, text, &d, &o)
	if size := len(b) - header; size > MaxSize {
		return Sealed{}, d.fault(tooLarge(size))
	}
	s := Sealed{UUID: id, Subject: d.subject, OrderingKey: d.orderingKey, Header: string(b[:header]), Envelope: bytes.Clone(b[header:])}
	s.ID = s.Header[idEnd-len(text) : idEnd]
	return s, nil
}

// frame is the text around what differs between messages of one type.
type frame struct {
	toID, version        string // of the headers: from behind the source to the id, and the line of the version
	toSource, fromSchema string // of the envelope: from behind the id to the source, and from behind the time
}

// newFrame returns that of a type; equal types share it.
func newFrame(typeName, schema string, version int) unique.Handle[frame] {
	return unique.Make(frame{
		toID:       headerEnd + HeaderType + headerSep + typeName + headerEnd + HeaderMsgID + headerSep,
		version:    HeaderEventVersion + headerSep + strconv.Itoa(version) + headerEnd,
		toSource:   `"` + fieldLeads[fieldType] + `"` + typeName + `"` + fieldLeads[fieldSource] + `"`,
		fromSchema: `"` + fieldLeads[fieldContentType] + `"` + ContentTypeJSON + `"` + fieldLeads[fieldSchema] + `"` + schema + `"`,
	})
}

// appendHeaders writes the headers in the order of their names, and tells where the
// id ends.
func (f *frame) appendHeaders(b []byte, source subject.Service, id []byte, o *Origin) (_ []byte, idEnd int) {
	b = append(b, HeaderSource+headerSep...)
	b = append(b, source.String()...)
	b = append(b, f.toID...)
	b = append(b, id...)
	idEnd = len(b)
	b = append(b, headerEnd...)
	b = appendHeader(b, HeaderCausationID, o.CausationID)
	b = appendHeader(b, HeaderCorrelationID, o.CorrelationID)
	b = append(b, f.version...)
	b = appendHeader(b, HeaderTenantID, o.TenantID)
	if trace := validTraceparent(o.Traceparent); trace != "" {
		b = appendHeader(b, HeaderTraceID, trace[traceIDStart:traceIDEnd])
		b = appendHeader(b, HeaderTraceparent, trace)
	}
	return b, idEnd
}

// appendHeader writes one line, none for an absent value.
func appendHeader(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, name...)
	b = append(b, headerSep...)
	b = append(b, value...)
	return append(b, headerEnd...)
}

// toID and toSubject are constant: what stands before those fields.
var (
	toID      = "{" + fieldLeads[fieldSpecVersion][1:] + `"` + SpecVersion + `"` + fieldLeads[fieldID] + `"`
	toSubject = `"` + fieldLeads[fieldSubject]
)

// appendEnvelope writes the fields in the order of [Envelope].
func (f *frame) appendEnvelope(b []byte, source subject.Service, id []byte, d *Draft, o *Origin) []byte {
	b = append(b, toID...)
	b = append(b, id...)
	b = append(b, f.toSource...)
	b = append(b, source.String()...)
	b = append(b, toSubject...)
	b = appendQuoted(b, d.resourceID)
	b = append(append(b, fieldLeads[fieldTime]...), '"')
	b = wireTime(time.Now()).AppendFormat(b, time.RFC3339Nano)
	b = append(b, f.fromSchema...)
	b = appendOptional(b, fieldTenant, o.TenantID)
	b = appendOptional(b, fieldProject, d.projectID)
	b = appendOptional(b, fieldEnvironment, d.environmentID)
	b = appendOptional(b, fieldDatacenter, d.datacenterID)
	b = appendOptional(b, fieldActor, string(o.Actor))
	b = appendOptional(b, fieldCorrelation, o.CorrelationID)
	b = appendOptional(b, fieldCausation, o.CausationID)
	if d.visibility != Internal {
		b = appendOptional(b, fieldVisibility, string(d.visibility))
	}
	b = append(append(b, fieldLeads[fieldData]...), d.data...)
	return append(b, '}')
}

// appendOptional writes a field that may be absent.
func appendOptional(b []byte, field int, text string) []byte {
	if text == "" {
		return b
	}
	return appendPlain(append(b, fieldLeads[field]...), text)
}
