package cloudevents

import (
	"strings"
	"unicode/utf8"
)

// hexDigits is how escapes are written.
const hexDigits = "0123456789ABCDEF"

// plain reports whether a byte stands in a header as it is: visible ASCII without
// quote and percent.
func plain(c byte) bool { return '!' <= c && c <= '~' && c != '"' && c != '%' }

// percentEncode writes an attribute as the bindings for headers want it.
func percentEncode(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	return b.String()
}

// percentDecode reads the value of a header: quotes around it are removed, then
// escapes are decoded, once. A value with a % that begins no escape is taken as it
// is: its sender does not encode. It returns the reason why the value is refused,
// or "".
func percentDecode(value string) (text, reason string) {
	text = unquote(value)
	if decoded, ok := unescape(text); ok {
		text = decoded
	}
	if !utf8.ValidString(text) {
		return "", "must be valid UTF-8"
	}
	return text, ""
}

// unquote removes the quotes of a quoted string, and the backslashes in it. What is
// no quoted string from one end to the other stays as it is.
func unquote(value string) string {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return value
	}
	var b strings.Builder
	inner := value[1 : len(value)-1]
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		} else if inner[i] == '"' || inner[i] == '\\' {
			return value
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

// unescape decodes all escapes, or reports that there is a % that begins none.
func unescape(text string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			b.WriteByte(text[i])
			continue
		}
		if i+2 >= len(text) {
			return "", false
		}
		high, low := hexValue(text[i+1]), hexValue(text[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String(), true
}

// hexValue returns the value of a hexadecimal digit of either case, or -1.
func hexValue(c byte) int {
	if 'a' <= c && c <= 'f' {
		c -= 'a' - 'A'
	}
	return strings.IndexByte(hexDigits, c)
}
