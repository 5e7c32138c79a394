package envelope

import (
	"bytes"
	"context"

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
// errors. What is written is what was validated, so that looking once is enough,
// and the headers need no map to be sorted; it is part of every transaction that
// sends a message. outbox.Enqueue calls it; services rarely do.
func Seal(ctx context.Context, source subject.Service, d Draft) (Sealed, error) {
	var e Envelope
	id := d.messageID()
	trace, err := d.fill(ctx, source, id, &e)
	if err != nil {
		return Sealed{}, err
	}
	// Written on the stack and copied, which is cheaper than to count first how
	// much it will be. What is larger finds its own place.
	var buf [2048]byte
	b := e.appendHeaders(buf[:0], trace)
	header := len(b)
	b = e.appendTo(b)
	return Sealed{
		ID: e.ID, UUID: id, Subject: d.subject, OrderingKey: d.orderingKey,
		Header: string(b[:header]), Envelope: bytes.Clone(b[header:]),
	}, nil
}

// appendHeaders writes the headers of a validated envelope, whose values all fit,
// and of a valid trace.
func (e *Envelope) appendHeaders(b []byte, trace string) []byte {
	for i := range projection {
		b = appendHeader(b, projection[i].name, projection[i].value(e))
	}
	// What is no projection follows it in the order of the names.
	if trace != "" {
		b = appendHeader(b, HeaderTraceID, trace[traceIDStart:traceIDEnd])
		b = appendHeader(b, HeaderTraceparent, trace)
	}
	return b
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
