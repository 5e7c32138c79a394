package cloudevents

import (
	"fmt"

	"codeberg.org/dataverket/messaging/envelope"
)

// Headers. SDKs look for exactly these spellings, and [envelope.Header] is
// written as it is; an http.Header wants each set by its Set.
const (
	headerPrefix      = "ce-"
	headerContentType = "content-type"
)

// Limits of headers in bytes: what servers for HTTP take, and what a broker does.
const (
	maxWritten = 8 << 10
	maxRead    = 64 << 10
)

// EncodeStructured writes the event as one JSON object: the attributes in their
// order, then data. The header holds its content type and nothing else; readers
// do without.
func (e Event) EncodeStructured() (envelope.Header, []byte, error) {
	b := []byte{'{'}
	for _, a := range e.attributes {
		b = appendMember(b, a.name, a.json)
	}
	if e.data != nil {
		b = appendMember(b, memberData, e.data)
	}
	b = append(b, '}')
	if len(b) > MaxSize {
		return nil, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxSize)
	}
	return envelope.Header{headerContentType: {ContentType}}, b, nil
}

// appendMember writes a member; the name has nothing to escape.
func appendMember(b []byte, name string, value []byte) []byte {
	if len(b) > 1 {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `":`...)
	return append(b, value...)
}

// EncodeBinary writes the event as headers, "ce-<name>" with percent-encoded
// values and the data's content type, and a body that is the data. All values are
// texts there. Headers of more than 8 KiB are refused: such an event travels
// structured. The body must not be changed.
func (e Event) EncodeBinary() (envelope.Header, []byte, error) {
	h := make(envelope.Header, len(e.attributes))
	size := 0
	for _, a := range e.attributes {
		name, value := headerPrefix+a.name, percentEncode(a.text)
		if a.name == attrContentType {
			name, value = headerContentType, a.text
		}
		h[name] = []string{value}
		size += len(name) + len(value) + len(": \r\n")
	}
	if size > maxWritten {
		return nil, nil, fmt.Errorf("%w: headers of %d bytes, at most %d: send it structured", ErrTooLarge, size, maxWritten)
	}
	return h, e.data, nil
}
