package rpc

import (
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
)

// SetGrace shortens what handlers get after their ctx was cancelled. Call it before
// the server stops.
func (s *Server) SetGrace(d time.Duration) { s.grace = d }

// ReadHeader reads the headers of a request under the default ceiling.
func ReadHeader(h nats.Header) (timeout time.Duration, version, source string, origin envelope.Origin, fault string) {
	m, fault := readHeader(h, DefaultMaxTimeout)
	return m.timeout, m.version, m.source, m.origin, fault
}

// WriteHeader writes them.
func WriteHeader(timeout time.Duration, version, source string, origin envelope.Origin) nats.Header {
	m := meta{timeout: timeout, version: version, source: source, origin: origin}
	return m.header()
}

// ReadError reads the body of an error reply, and ErrorReply writes one.
var (
	ReadError  = readError  // constant
	ErrorReply = errorReply // constant
)

// Decode reads a body into a value, by the names of its type.
func Decode[T any](op Operation[T, T], data []byte) (value T, err error) {
	err = decode(data, op.contract.request.names, &value)
	return value, err
}
