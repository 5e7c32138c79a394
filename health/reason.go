package health

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a reason, in bytes: what is shown, and what is looked at.
const (
	maxReason = 512
	maxText   = 8 << 10
)

// What may be secret in the text of an error: credentials of a URL, and the values
// of connection strings.
var (
	userInfo  = regexp.MustCompile(`://[^/\s@]+@`)
	secretKey = regexp.MustCompile(`(?i)\b(password|passwd|pwd|secret|token|sslpassword)(\s*[=:]\s*)('[^']*'|"[^"]*"|[^\s'"]\S*)`)
)

// reason makes one line of a text, without secrets and not too long.
func reason(text string) string {
	if len(text) > maxText {
		text = text[:maxText]
	}
	text = strings.TrimSpace(strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	text = userInfo.ReplaceAllString(text, "://***@")
	text = secretKey.ReplaceAllString(text, "$1$2***")
	if text == "" {
		return "an error without a text"
	}
	return cut(text, maxReason)
}

// cut shortens a text to so many bytes, at the beginning of a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	most -= len("…")
	for !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}
