package strictjson

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// escapeLen is the length of a \u escape with its four hex digits.
const escapeLen = 6

// escape accepts the escape at pos.
func (s *scanner) escape() bool {
	if s.pos+1 >= len(s.data) {
		return s.fail(s.pos, "text ends inside an escape")
	}
	switch s.data[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return true
	case 'u':
		return s.unicodeEscape()
	}
	return s.fail(s.pos, "unknown escape")
}

// unicodeEscape accepts a \u escape, or two of them that form a surrogate pair.
func (s *scanner) unicodeEscape() bool {
	unit, ok := codeUnit(s.data[s.pos:])
	switch {
	case !ok:
		return s.fail(s.pos, "\\u without four hexadecimal digits")
	case unit == 0:
		return s.fail(s.pos, "U+0000 is not allowed")
	case utf16.IsSurrogate(unit):
		low, ok := codeUnit(s.data[s.pos+escapeLen:])
		if !ok || utf16.DecodeRune(unit, low) == utf8.RuneError {
			return s.fail(s.pos, "surrogate escape without its other half")
		}
		s.pos += escapeLen
	}
	s.pos += escapeLen
	return true
}

// codeUnit reads the \u escape that b begins with.
func codeUnit(b []byte) (rune, bool) {
	if len(b) < escapeLen || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var unit rune
	for _, c := range b[2:escapeLen] {
		digit, ok := hexDigit(c)
		if !ok {
			return 0, false
		}
		unit = unit<<4 | digit
	}
	return unit, true
}

// hexDigit returns the value of a hexadecimal digit of either case.
func hexDigit(c byte) (rune, bool) {
	switch {
	case isDigit(c):
		return rune(c - '0'), true
	case 'a' <= c && c <= 'f':
		return rune(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return rune(c-'A') + 10, true
	}
	return 0, false
}

// AppendUnescaped appends to dst what the string text means. text is what an
// accepted string holds between its quotes; other text gives an unspecified
// result but never a panic.
func AppendUnescaped(dst, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+1 >= len(text) {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		var n int
		dst, n = appendEscape(dst, text[i:])
		text = text[i+n:]
	}
}

// appendEscape appends the rune of the escape that text begins with, and returns
// its length.
func appendEscape(dst, text []byte) ([]byte, int) {
	switch c := text[1]; c {
	case 'b':
		return append(dst, '\b'), 2
	case 'f':
		return append(dst, '\f'), 2
	case 'n':
		return append(dst, '\n'), 2
	case 'r':
		return append(dst, '\r'), 2
	case 't':
		return append(dst, '\t'), 2
	case 'u':
		unit, ok := codeUnit(text)
		if !ok {
			return append(dst, c), 2
		}
		if !utf16.IsSurrogate(unit) {
			return utf8.AppendRune(dst, unit), escapeLen
		}
		low, _ := codeUnit(text[escapeLen:])
		r := utf16.DecodeRune(unit, low)
		if r == utf8.RuneError {
			return utf8.AppendRune(dst, r), escapeLen
		}
		return utf8.AppendRune(dst, r), 2 * escapeLen
	default: // quote, backslash and slash stand for themselves
		return append(dst, c), 2
	}
}
