package envelope

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// Encode validates e and writes it: the fields in the order of [Envelope], absent
// ones left out, then the unknown fields with their bytes unchanged. The same
// envelope always gives the same bytes. Faults are reported as by
// [Envelope.Validate]; an envelope larger than [MaxSize] wraps [ErrTooLarge].
func (e *Envelope) Encode() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("envelope: encode: %w", err)
	}
	size := e.size()
	if size > MaxSize {
		return nil, fmt.Errorf("envelope: encode: %w", tooLarge(size))
	}
	return e.appendTo(make([]byte, 0, size)), nil
}

// appendTo writes a validated envelope.
func (e *Envelope) appendTo(b []byte) []byte {
	b = append(b, '{')
	for i := range fields {
		f := &fields[i]
		if f.text == nil {
			b = e.appendTyped(b, i)
		} else if text := *f.text(e); text != "" {
			b = appendQuoted(appendName(b, f.name), text)
		}
	}
	for _, f := range e.unknown {
		b = append(appendNameBytes(b, f.name), f.value...)
	}
	return append(b, '}')
}

// appendTyped writes a field that has a type of its own.
func (e *Envelope) appendTyped(b []byte, i int) []byte {
	switch name := fields[i].name; i {
	case fieldSource:
		return appendQuoted(appendName(b, name), e.Source.String())
	case fieldTime:
		b = append(appendName(b, name), '"')
		return append(wireTime(e.Time).AppendFormat(b, time.RFC3339Nano), '"')
	case fieldVisibility:
		if e.Visibility != Internal {
			return appendQuoted(appendName(b, name), string(e.Visibility))
		}
	case fieldData:
		return append(appendName(b, name), trimSpace(e.Data)...)
	}
	return b
}

// appendName writes a name, with a comma unless it is the first.
func appendName(b []byte, name string) []byte {
	if len(b) > 1 {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendNameBytes is appendName for a name that is still escaped.
func appendNameBytes(b, name []byte) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendQuoted writes a string. Validated text holds no control characters and
// only valid UTF-8, so quote and backslash are all there is to escape.
func appendQuoted(b []byte, text string) []byte {
	b = append(b, '"')
	for escapes(text) > 0 {
		i := strings.IndexAny(text, `"\`)
		b = append(b, text[:i]...)
		b = append(b, '\\', text[i])
		text = text[i+1:]
	}
	b = append(b, text...)
	return append(b, '"')
}

// escapes counts the bytes that are written with a backslash. Nearly always there
// are none, which two searches find fastest.
func escapes(text string) int {
	if strings.IndexByte(text, '"') < 0 && strings.IndexByte(text, '\\') < 0 {
		return 0
	}
	return strings.Count(text, `"`) + strings.Count(text, `\`)
}

// trimSpace cuts the white space that JSON allows around a value.
func trimSpace(data []byte) []byte { return bytes.Trim(data, " \t\r\n") }

// size returns how many bytes Encode writes, without writing them.
func (e *Envelope) size() int {
	size := len("{}") - len(",")
	for i := range fields {
		if n := e.fieldSize(i); n > 0 {
			size += len(`,"":`) + len(fields[i].name) + n
		}
	}
	for _, f := range e.unknown {
		size += len(`,"":`) + len(f.name) + len(f.value)
	}
	return size
}

// fieldSize returns how many bytes the value of the i-th field takes, 0 when the
// field is absent.
func (e *Envelope) fieldSize(i int) int {
	switch i {
	case fieldSource:
		return quotedSize(e.Source.String())
	case fieldTime:
		return timeSize(e.Time)
	case fieldVisibility:
		return quotedSize(string(e.Visibility))
	case fieldData:
		return len(trimSpace(e.Data))
	}
	return quotedSize(*fields[i].text(e))
}

// quotedSize returns how many bytes appendQuoted writes, 0 for an absent text.
func quotedSize(text string) int {
	if text == "" {
		return 0
	}
	return len(`""`) + len(text) + escapes(text)
}
