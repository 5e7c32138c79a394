package envelope

import (
	"context"

	"github.com/google/uuid"

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
	// Subject is where it is published.
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
	trace, size, err := d.fill(ctx, source, &e)
	if err != nil {
		return Sealed{}, err
	}
	id, _ := uuid.Parse(e.ID) // validated
	return Sealed{
		ID: e.ID, UUID: id, Subject: d.subject, OrderingKey: d.orderingKey,
		Header:   e.headerText(trace),
		Envelope: e.appendTo(make([]byte, 0, size)),
	}, nil
}

// headerText writes the headers of a validated envelope, whose values all fit, and
// of a valid trace.
func (e *Envelope) headerText(trace string) string {
	var buf [512]byte // on the stack; most headers take 400 bytes at most
	b := buf[:0]
	for i := range projection {
		b = appendHeader(b, projection[i].name, projection[i].value(e))
	}
	// What is no projection follows it in the order of the names.
	if trace != "" {
		b = appendHeader(b, HeaderTraceID, trace[traceIDStart:traceIDEnd])
		b = appendHeader(b, HeaderTraceparent, trace)
	}
	return string(b)
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
