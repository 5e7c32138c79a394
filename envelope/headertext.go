package envelope

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a header block that this library writes. The broker allows more
// (64 KiB); what needs more is not a header.
const (
	maxHeaderNames = 32
	maxHeaderBytes = 8 << 10
)

// Parts of a header line.
const (
	headerSep = ": "
	headerEnd = "\r\n"
)

// Validate reports, all at once as [*FieldError], what keeps h from being
// published by this library: more than 32 names or 8 KiB; a name that is no
// token, holds another number of values than one, is an own name in another case
// or two names that differ in case; a value with control characters or beyond
// ASCII; and names that steer the server ("Nats-…", other than Nats-Msg-Id), or
// that end in Nats-Msg-Id, which old servers take for it.
//
// Headers of foreign messages may break these rules and are still delivered; what
// they say about the envelope is for [Envelope.CheckHeader].
func (h Header) Validate() error {
	var faults []error
	names := slices.Sorted(maps.Keys(h))
	size := 0
	for i, name := range names {
		size += headerSize(name, h[name])
		reason := headerFault(name, h[name])
		if reason == "" && foldedIn(names[:i], name) {
			reason = reasonFolded
		}
		if reason != "" {
			faults = append(faults, &FieldError{"header " + clip(name), reason})
		}
	}
	if len(h) > maxHeaderNames {
		faults = append(faults, &FieldError{"header", "holds more than 32 names"})
	}
	if size > maxHeaderBytes {
		faults = append(faults, &FieldError{"header", reasonHeaderSize})
	}
	return errors.Join(faults...)
}

// Reasons that are given in more than one place.
const (
	reasonFolded      = "comes in more than one case"
	reasonHeaderSize  = "is longer than 8 KiB"
	reasonHeaderValue = "must have a value of visible ASCII, with spaces inside it at most"
)

// foldedIn reports whether name is in names, in whatever case.
func foldedIn(names []string, name string) bool {
	return slices.ContainsFunc(names, func(other string) bool { return sameFold(other, name) })
}

// headerSize returns how many bytes a header takes in a block.
func headerSize(name string, values []string) int {
	size := 0
	for _, v := range values {
		size += len(name) + len(headerSep) + len(v) + len(headerEnd)
	}
	return size
}

// headerFault returns why one header cannot be published, or "".
func headerFault(name string, values []string) string {
	if reason := headerNameFault(name); reason != "" {
		return reason
	}
	if len(values) != 1 {
		return "must have exactly one value"
	}
	if !isHeaderValue(values[0]) {
		return reasonHeaderValue
	}
	return ""
}

// headerNameFault returns why a name cannot be published, or "".
func headerNameFault(name string) string {
	own := ownName(name)
	switch {
	case own == name && own != "":
		return ""
	case !isHeaderName(name):
		return "must have a name of letters, digits and !#$%&'*+-.^_`|~"
	case hasPrefixFold(name, "Nats-"):
		return "must not be set: names in Nats- steer the server"
	case hasSuffixFold(name, HeaderMsgID):
		return "must not end in Nats-Msg-Id: old servers take it for that header"
	case own != "":
		return "must be spelled " + own
	}
	return ""
}

// ownName returns the name of the library's own that name spells in whatever
// case, or "".
func ownName(name string) string {
	for i := range projection {
		if sameFold(name, projection[i].name) {
			return projection[i].name
		}
	}
	for _, own := range travelling {
		if sameFold(name, own) {
			return own
		}
	}
	return ""
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func hasSuffixFold(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}

// isHeaderName reports whether name is a token of RFC 9110.
func isHeaderName(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}

// isHeaderValue reports whether value survives every header reader unchanged:
// visible ASCII and inner spaces. Readers trim outer ones, some turn CR and LF
// into spaces, and none agree beyond ASCII.
func isHeaderValue(value string) bool {
	if value == "" || value[0] == ' ' || value[len(value)-1] == ' ' {
		return false
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return true
}

// MarshalHeader writes h as the outbox keeps it: one line "Name: value\r\n" for
// each header, sorted by name, the empty text for an empty header. The header of
// a [Message] always fits. What [Header.Validate] refuses in a single header is
// left out, so that no value can end its line and forge the next; headers from
// elsewhere are validated first.
func MarshalHeader(h Header) string {
	var buf [maxHeaderNames]string
	names := buf[:0]
	size := 0
	for name, values := range h {
		if headerFault(name, values) == "" {
			names = append(names, name)
			size += headerSize(name, values)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	b.Grow(size)
	for _, name := range names {
		b.WriteString(name)
		b.WriteString(headerSep)
		b.WriteString(h[name][0])
		b.WriteString(headerEnd)
	}
	return b.String()
}

// UnmarshalHeader reads what [MarshalHeader] wrote, and nothing else: every line
// complete, names ascending and each but once, and every header acceptable to
// [Header.Validate]. The first fault is reported as a [*FieldError] with the
// number of its line and without its content.
func UnmarshalHeader(text string) (Header, error) {
	if len(text) > maxHeaderBytes {
		return nil, &FieldError{"header", reasonHeaderSize}
	}
	lines := min(strings.Count(text, headerEnd), maxHeaderNames)
	h := make(Header, lines)
	values := make([]string, 0, lines) // one allocation for all values
	var buf [maxHeaderNames]string
	names := buf[:0]
	for text != "" {
		name, value, rest, reason := cutHeader(text)
		if reason == "" {
			reason = lineFault(names, name, value)
		}
		if reason != "" {
			return nil, &FieldError{"header line " + strconv.Itoa(len(names)+1), reason}
		}
		names, values = append(names, name), append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
		text = rest
	}
	return h, nil
}

// lineFault returns why a line cannot follow those with the given names, or "".
func lineFault(names []string, name, value string) string {
	n := len(names)
	if reason := headerNameFault(name); reason != "" {
		return reason
	}
	switch {
	case n == maxHeaderNames:
		return "is one too many: at most 32 names"
	case n > 0 && name <= names[n-1]:
		return "is out of place: names must ascend, each but once"
	case foldedIn(names, name):
		return reasonFolded
	case !isHeaderValue(value):
		return reasonHeaderValue
	}
	return ""
}

// cutHeader divides text behind its first line and that line into its parts.
func cutHeader(text string) (name, value, rest, reason string) {
	line, rest, ok := strings.Cut(text, headerEnd)
	if !ok {
		return "", "", "", "does not end in CR LF"
	}
	name, value, ok = strings.Cut(line, headerSep)
	if !ok {
		return "", "", "", "has no colon and space behind the name"
	}
	return name, value, rest, ""
}

// sameFold compares ASCII names without case; the length rules most pairs out.
func sameFold(a, b string) bool { return a == b || len(a) == len(b) && strings.EqualFold(a, b) }
