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
	begin := len(b)
	for i := range fields {
		switch text := e.text(i); {
		case text == nil:
			b = e.appendTyped(b, i)
		case *text == "":
		case i == fieldSubject:
			b = appendQuoted(append(b, fieldLeads[i]...), *text)
		default:
			b = appendPlain(append(b, fieldLeads[i]...), *text)
		}
	}
	for _, f := range e.unknown {
		b = append(b, ',', '"')
		b = append(b, f.name...) // still escaped
		b = append(b, '"', ':')
		b = append(b, f.value...)
	}
	b[begin] = '{' // instead of the first comma
	return append(b, '}')
}

// appendTyped writes a field that has a type of its own.
func (e *Envelope) appendTyped(b []byte, i int) []byte {
	switch lead := fieldLeads[i]; i {
	case fieldSource:
		return appendPlain(append(b, lead...), e.Source.String())
	case fieldTime:
		b = append(append(b, lead...), '"')
		return append(wireTime(e.Time).AppendFormat(b, time.RFC3339Nano), '"')
	case fieldVisibility:
		if e.Visibility != Internal {
			return appendPlain(append(b, lead...), string(e.Visibility))
		}
	case fieldData:
		return append(append(b, lead...), trimSpace(e.Data)...)
	}
	return b
}

// fieldLeads is constant: what stands before the value of each field.
var fieldLeads = func() (leads [fieldCount]string) {
	for i := range leads {
		leads[i] = `,"` + fields[i].name + `":`
	}
	return leads
}()

// appendPlain writes a string that has nothing to escape: the rules of all fields
// but subject see to that.
func appendPlain(b []byte, text string) []byte {
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

// appendQuoted writes a subject. A validated one holds no control characters and
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

// size returns how many bytes Encode writes, without writing them. It is exact for
// a valid envelope.
func (e *Envelope) size() int {
	size := len("{}") - len(",")
	for i := range fields {
		if n := e.fieldSize(i); n > 0 {
			size += len(fieldLeads[i]) + n
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
	case fieldSubject:
		return quotedSize(e.Subject) + escapes(e.Subject)
	}
	return quotedSize(*e.text(i))
}

// quotedSize returns how many bytes a text without escapes takes, 0 for an absent
// one.
func quotedSize(text string) int {
	if text == "" {
		return 0
	}
	return len(`""`) + len(text)
}
