package dlq

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"codeberg.org/dataverket/messaging/envelope"
)

// Bounds of error texts, in bytes.
const (
	// maxError is what a letter keeps of an error.
	maxError = 1 << 10
	// maxErrorRead is what is looked at for the fingerprint: an error that
	// quotes its whole input must not cost more than the message itself.
	maxErrorRead = 8 << 10
)

// ellipsis shows that a text was cut.
const ellipsis = "…"

// oneLine returns text as one line of valid UTF-8 of at most limit bytes.
// Control characters and line separators become spaces, so that an error cannot
// end a header, forge a log line or steer a terminal.
func oneLine(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
	return shorten(strings.TrimSpace(text), limit)
}

// shorten cuts valid UTF-8 to at most limit bytes, at a rune border, and shows
// that it did.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	cut := max(limit-len(ellipsis), 0)
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strings.TrimSpace(text[:cut]) + ellipsis
}

// errorText returns the text of err, and "" for nil.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// fingerprint returns what letters that failed alike have in common: the hex
// SHA-256 over class, durable, type and the error without its variable parts.
func fingerprint(class envelope.Class, durable, typ, text string) string {
	sum := digest("dv.fingerprint.v1", string(class), durable, typ, normalise(oneLine(text, maxErrorRead)))
	return hex.EncodeToString(sum[:])
}

// The variable parts of an error text.
var (
	// quotedPart is a quoted string behind a space or an opening sign, so that
	// the apostrophe of "can't" opens nothing. RE2 has no back references, hence
	// one branch for each quote.
	quotedPart = regexp.MustCompile("(^|[\\s(\\[{=:,])(\"[^\"]*\"|'[^']*'|`[^`]*`)")
	// uuidPart is a UUID in the usual form.
	uuidPart = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)
	// wordPart is what a digit can stand in.
	wordPart = regexp.MustCompile(`[0-9A-Za-z]+`)
	// digitsPart is a number.
	digitsPart = regexp.MustCompile(`[0-9]+`)
)

// blank stands for every variable part.
const blank = "#"

// normalise replaces what differs between two failures of one cause: quoted
// strings, UUIDs, hexadecimal numbers and other long identifiers, and digits. It
// is idempotent, so that a normalised text can be compared with a fresh one.
func normalise(text string) string {
	text = quotedPart.ReplaceAllStringFunc(text, blankQuoted)
	text = uuidPart.ReplaceAllString(text, blank)
	return wordPart.ReplaceAllStringFunc(text, blankWord)
}

// blankQuoted keeps the quotes and what stands before them.
func blankQuoted(match string) string {
	quote := match[len(match)-1:]
	head, _, _ := strings.Cut(match, quote)
	return head + quote + blank + quote
}

// Lengths from which a word is an identifier rather than a word.
const (
	hexWord  = 8
	longWord = 16
)

// blankWord replaces the word as a whole when it is an identifier, and else its
// digits.
func blankWord(word string) string {
	digits := strings.ContainsAny(word, "0123456789")
	hexadecimal := strings.Trim(word, "0123456789abcdefABCDEF") == ""
	switch {
	case digits && hexadecimal && len(word) >= hexWord, len(word) >= longWord && (digits || hexadecimal):
		return blank
	case digits:
		return digitsPart.ReplaceAllString(word, blank)
	}
	return word
}

// digest is SHA-256 over parts, each behind its length as four bytes, big end
// first: without the lengths, moving a character from one part to the next
// would give the same digest.
func digest(parts ...string) [sha256.Size]byte {
	var text []byte
	for _, p := range parts {
		n := len(p)
		text = append(text, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		text = append(text, p...)
	}
	return sha256.Sum256(text)
}
