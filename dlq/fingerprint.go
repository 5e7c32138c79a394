package dlq

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
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

// blank stands for a variable part.
const blank = "#"

// The variable parts of an error text that are found before it is taken apart.
var (
	// quotedPart is a quoted string behind a space or an opening sign, so that
	// the apostrophe of "can't" opens nothing. RE2 has no back references, hence
	// one branch for each quote.
	quotedPart = regexp.MustCompile("(^|[\\s(\\[{=:,])(\"[^\"]*\"|'[^']*'|`[^`]*`)")
	// uuidPart is a UUID in the usual form.
	uuidPart = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`)
	// urlPart is a URL with its scheme.
	urlPart = regexp.MustCompile(`([A-Za-z][0-9A-Za-z+.\-]*://)[^\s"'<>(){}]+`)
	// chunkPart is what stands between white space, brackets and the signs that
	// join a name to its value.
	chunkPart = regexp.MustCompile(`[^\s(){}<>|;,="'` + "`" + `]+`)
	// wordPart is what a digit can stand in.
	wordPart = regexp.MustCompile(`[0-9A-Za-z]+`)
	// digitsPart is a number.
	digitsPart = regexp.MustCompile(`[0-9]+`)
	// blankRun is several variable parts in a row: the parts of a number, a date
	// or a list, of which one error has more than the next.
	blankRun = regexp.MustCompile(`#(?:[\s,.:/+_\-]{1,2}#)+`)
	// quotedRun is the same for quoted parts.
	quotedRun = regexp.MustCompile("\"#\"(?:[\\s,]{1,2}\"#\")+|'#'(?:[\\s,]{1,2}'#')+|`#`(?:[\\s,]{1,2}`#`)+")
)

// normalise replaces what differs between two failures of one cause: quoted
// strings, UUIDs, addresses, URLs behind their scheme, durations, times, numbers,
// hexadecimal and other identifiers, and lists of them. It takes time in
// proportion to the text, and returns at most half as much again. It is
// idempotent, so that a normalised text can be compared with a fresh one.
func normalise(text string) string {
	text = quotedPart.ReplaceAllStringFunc(text, blankQuoted)
	text = uuidPart.ReplaceAllString(text, blank)
	// Not the usual sign: a number behind it would be taken into the URL.
	text = urlPart.ReplaceAllString(text, "${1}"+ellipsis)
	text = chunkPart.ReplaceAllStringFunc(text, blankChunk)
	text = blankRun.ReplaceAllString(text, blank)
	return quotedRun.ReplaceAllStringFunc(text, func(run string) string { return run[:len(`"#"`)] })
}

// blankQuoted keeps the quotes and what stands before them.
func blankQuoted(match string) string {
	quote := match[len(match)-1:]
	head, _, _ := strings.Cut(match, quote)
	return head + quote + blank + quote
}

// blankChunk replaces a chunk that is variable as a whole, and else its words.
// Signs that end a sentence are no part of it.
func blankChunk(chunk string) string {
	body := strings.TrimRight(chunk, ".:!?")
	tail := chunk[len(body):]
	if isAddress(body) || isQuantity(body) {
		return blank + tail
	}
	return wordPart.ReplaceAllStringFunc(chunk, blankWord)
}

// isAddress reports whether text is an IP address, with a port or a prefix or
// not, or a mail address.
func isAddress(text string) bool {
	bare := strings.Trim(text, "[]")
	_, addrErr := netip.ParseAddr(bare)
	_, portErr := netip.ParseAddrPort(text)
	_, prefixErr := netip.ParsePrefix(bare)
	at := strings.IndexByte(text, '@')
	return addrErr == nil || portErr == nil || prefixErr == nil || at > 0 && at < len(text)-1
}

// isQuantity reports whether text is a number or a duration, with a sign or not.
func isQuantity(text string) bool {
	_, durationErr := time.ParseDuration(text)
	_, numberErr := strconv.ParseFloat(text, 64)
	return (durationErr == nil || numberErr == nil) && strings.ContainsAny(text, digits)
}

// Lengths from which a word is an identifier rather than a word.
const (
	digits    = "0123456789"
	hexWord   = 8
	mixedWord = 5
	longWord  = 16
)

// blankWord replaces the word as a whole when it is an identifier, and else its
// digits.
func blankWord(word string) string {
	numbered := strings.ContainsAny(word, digits)
	hexadecimal := strings.Trim(strings.TrimPrefix(word, "0x"), digits+"abcdefABCDEF") == ""
	switch {
	case numbered && hexadecimal && (len(word) >= hexWord || strings.HasPrefix(word, "0x")),
		len(word) >= longWord && (numbered || hexadecimal),
		len(word) >= mixedWord && isMixed(word):
		return blank
	case numbered:
		return digitsPart.ReplaceAllString(word, blank)
	}
	return word
}

// isMixed reports whether letters and digits take turns more than once, as in the
// names that machines give. "sha256" and "5ms" are no such names.
func isMixed(word string) bool {
	turns := 0
	for i := 1; i < len(word); i++ {
		if isDigit(word[i]) != isDigit(word[i-1]) {
			turns++
		}
	}
	return turns > 1
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

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
