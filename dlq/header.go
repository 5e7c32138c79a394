package dlq

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
)

// Names of the headers that a letter has beside those of package envelope. None
// ends in the name of a server header, which old servers took for the header
// itself.
const (
	// HeaderDurable is the durable that gave up.
	HeaderDurable = "Dv-Durable"
	// HeaderClass is the class of the failure.
	HeaderClass = "Dv-Class"
	// HeaderError is the last error: one line, at most 1 KiB.
	HeaderError = "Dv-Error"
	// HeaderAttempts is how often the handler was started.
	HeaderAttempts = "Dv-Attempts"
	// HeaderFirstAt and HeaderLastAt are the times of the first and the last
	// attempt, RFC 3339 in UTC.
	HeaderFirstAt = "Dv-First-At"
	HeaderLastAt  = "Dv-Last-At"
	// HeaderFingerprint is equal on letters that failed alike.
	HeaderFingerprint = "Dv-Fingerprint"
	// HeaderRound is how many replays came before the failure, on a letter, and
	// which replay it is, on a replay: the n of its message id.
	HeaderRound = "Dv-Round"
	// HeaderResource is the envelope's subject, on a letter: what the message is
	// about.
	HeaderResource = "Dv-Resource"
	// HeaderEdited is the SHA-256 of the data that an operator gave a replay
	// instead of the original's, in hex; absent where the data is the letter's.
	HeaderEdited = "Dv-Edited"
	// HeaderOriginalID is the message id of the original.
	HeaderOriginalID = "Dv-Original-Id"
	// HeaderOriginalStoredAt is when the original was stored, RFC 3339 in UTC.
	HeaderOriginalStoredAt = "Dv-Original-Stored-At"
	// HeaderOriginalHeader comes once for each header value of the original that
	// the letter does not repeat under its own name: "<name>: <value>".
	HeaderOriginalHeader = "Dv-Original-Header"
	// HeaderOriginalHeaderCut is how many values of the original's headers found
	// no room.
	HeaderOriginalHeaderCut = "Dv-Original-Header-Cut"
	// HeaderDataOmitted is the size of the original's bytes where they found no
	// room; the letter's body is empty then.
	HeaderDataOmitted = "Dv-Data-Omitted"
)

// repeated is constant: the headers that a letter and a replay have under the
// name the original had them. The envelope says what they hold; only where it
// did not decode, and for the trace and the site, the original's headers do.
var repeated = [...]string{
	envelope.HeaderCorrelationID, envelope.HeaderCausationID, envelope.HeaderEventVersion,
	envelope.HeaderTenantID, envelope.HeaderTraceparent, envelope.HeaderTraceID,
	envelope.HeaderType, envelope.HeaderSource, envelope.HeaderSite,
}

// reserved is constant: what only this package may say. An original that has
// such a header, by malice or because it is a replay, cannot make it the
// letter's or the next replay's own.
var reserved = [...]string{
	envelope.HeaderLetterID, envelope.HeaderOriginalSubject, envelope.HeaderOriginalStream,
	envelope.HeaderOriginalSequence, HeaderDurable, HeaderClass, HeaderError, HeaderAttempts,
	HeaderFirstAt, HeaderLastAt, HeaderFingerprint, HeaderRound, HeaderOriginalID,
	HeaderOriginalStoredAt, HeaderOriginalHeader, HeaderOriginalHeaderCut, HeaderDataOmitted,
	HeaderResource, HeaderEdited,
}

// Bounds of what is kept. The server takes 64 KiB of headers; the names, the
// subject and the ids need less than 8 of them.
const (
	// maxRepeated bounds one repeated value, in bytes. A longer one, which only
	// a foreign producer can send, is kept among the original headers.
	maxRepeated = 512
	// maxOriginalValues and maxOriginalBytes bound the original's headers.
	maxOriginalValues = 64
	maxOriginalBytes  = 16 << 10
)

// isReserved reports whether name is one of reserved in any case.
func isReserved(name string) bool {
	return slices.ContainsFunc(reserved[:], func(r string) bool { return strings.EqualFold(r, name) })
}

// isServer reports whether name belongs to the server: such a header is an order
// (roll up, expect, schedule, trace) and is never sent on.
func isServer(name string) bool {
	const prefix = "nats-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// isReplayed reports whether a header of the original is sent as itself with a
// replay. The list is short on purpose: what is not on it is not lost, but
// travels as Dv-Original-Header.
func isReplayed(name string) bool {
	if isReserved(name) || isServer(name) {
		return false
	}
	switch lower := strings.ToLower(name); lower {
	case "tenant-id", "traceparent", "tracestate", "trace-id", "correlation-id":
		return true
	default:
		return strings.HasPrefix(lower, "dv-") || strings.HasPrefix(lower, "x-")
	}
}

// set gives h one value under name, unless there is nothing to say.
func set(h envelope.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

// setCount is set for a number; zero is nothing to say.
func setCount(h envelope.Header, name string, n int) {
	if n > 0 {
		set(h, name, strconv.Itoa(n))
	}
}

// setTime is set for a time; the zero time is nothing to say.
func setTime(h envelope.Header, name string, t time.Time) {
	if !t.IsZero() {
		set(h, name, t.UTC().Format(time.RFC3339Nano))
	}
}

// value is one header value with its name, as Dv-Original-Header holds it.
type value struct{ name, text string }

// String returns the form on the wire.
func (v value) String() string { return v.name + ": " + v.text }

// parseValue reads the form on the wire. It never fails: what has no colon is
// kept as a name without a value.
func parseValue(text string) value {
	name, rest, _ := strings.Cut(text, ":")
	return value{name, strings.TrimPrefix(rest, " ")}
}

// pack returns the headers of the original that h does not repeat word for word,
// in the order of their names, as far as there is room, and how many values
// found none. A header that contradicts the envelope is among them, since h
// holds what the envelope says: nothing of a security failure is smoothed over.
func pack(h, original envelope.Header) (packed []string, cut int) {
	size := 0
	for _, name := range slices.Sorted(maps.Keys(original)) {
		if len(original[name]) == 1 && h.Get(name) == original[name][0] {
			continue
		}
		for _, v := range original[name] {
			line := value{oneLine(name, maxRepeated), v}.String()
			if line = clean(line); len(packed) == maxOriginalValues || size+len(line) > maxOriginalBytes {
				cut++
				continue
			}
			size += len(line)
			packed = append(packed, line)
		}
	}
	return packed, cut
}

// unpack is the reverse of pack: it returns the original's headers that h does
// not repeat.
func unpack(h envelope.Header) envelope.Header {
	packed := h[HeaderOriginalHeader]
	if len(packed) == 0 {
		return nil
	}
	original := make(envelope.Header, len(packed))
	for _, line := range packed {
		v := parseValue(line)
		original[v.name] = append(original[v.name], v.text)
	}
	return original
}

// clean replaces what cannot stand in a header value, byte by byte, so that a
// value that is no UTF-8 stays as it is.
func clean(text string) string {
	cleaned := []byte(text)
	for i, c := range cleaned {
		if c < ' ' && c != '\t' || c == 0x7f {
			cleaned[i] = ' '
		}
	}
	return string(cleaned)
}

// count reads a number that is not negative; ok is false for anything else.
func count(text string) (n int, ok bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0
}
