package envelope

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"codeberg.org/dataverket/messaging/subject"
)

// The rules below return why a text is refused, or "". Reasons are constants and
// never hold the text: it may be foreign, secret or both.

// Limits in bytes.
const (
	maxID        = 128
	maxResource  = 256
	maxType      = 255
	maxMediaType = 127
)

// Numbers of tokens in a type.
const (
	minTypeTokens = 2
	maxTypeTokens = 6
)

// typeTask is the first token of the types that belong to no single service.
const typeTask = "task"

// reasonSource is said of a source that is missing or foreign to the closed set.
func reasonSource() string {
	text := "must be a known service:"
	for _, s := range subject.Services() {
		text += " " + s.String()
	}
	return text
}

// checkSpecVersion accepts any 1.x, so that a minor version can add fields.
func checkSpecVersion(text string) string {
	minor, ok := strings.CutPrefix(text, "1.")
	if ok && isNumber(minor) {
		return ""
	}
	if major, _, _ := strings.Cut(text, "."); isNumber(major) && major > "1" {
		return "is of a later major version than 1, which this release reads: deploy one that reads it, at every site and before anybody sends it, then replay"
	}
	return "must be 1.0, or 1.x of a later version"
}

// isNumber reports whether text is a number of 1 to 8 digits.
func isNumber(text string) bool {
	if text == "" || len(text) > 8 {
		return false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return true
}

// The two UUIDs that identify nothing.
const (
	nilUUID = "00000000-0000-0000-0000-000000000000"
	maxUUID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
)

// checkUUID accepts the one canonical spelling: the id is compared as text, here
// and in other languages, and two spellings of one id would be two messages. The
// nil and the max UUID are refused, because they are what a broken producer sends
// every time, and all but the first would pass for duplicates.
func checkUUID(text string) string {
	if len(text) != len(nilUUID) || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return "must be a UUID of the form 8-4-4-4-12"
	}
	if !isHex(text[:8]) || !isHex(text[9:13]) || !isHex(text[14:18]) || !isHex(text[19:23]) || !isHex(text[24:]) {
		return "must be a UUID in lower-case hexadecimal digits"
	}
	if text == nilUUID || text == maxUUID {
		return "must not be the nil or the max UUID: every message needs an id of its own"
	}
	return ""
}

// checkType accepts the grammar of [Envelope.Type].
func checkType(text string) string {
	if len(text) > maxType {
		return "is longer than 255 bytes"
	}
	tokens := 1
	begin := true // at the first byte of a token
	for i := range len(text) {
		c := text[i]
		switch {
		case c == '.' && !begin:
			tokens++
			begin = true
			continue
		case !isNameByte(c, begin):
			return reasonType
		}
		begin = false
	}
	switch {
	case begin:
		return reasonType
	case tokens < minTypeTokens || tokens > maxTypeTokens:
		return "must have 2 to 6 tokens separated by dots"
	}
	return checkTypeOwner(firstToken(text))
}

// reasonType is said of a type that breaks the grammar.
const reasonType = "must be tokens of a-z, 0-9 and _, each beginning with a letter, separated by dots"

// checkTypeOwner accepts the first token of a type.
func checkTypeOwner(first string) string {
	if first == typeTask {
		return ""
	}
	if _, err := subject.ParseService(first); err != nil {
		return "must begin with a service name or task"
	}
	return ""
}

// firstToken returns what stands before the first dot.
func firstToken(text string) string {
	first, _, _ := strings.Cut(text, ".")
	return first
}

// isNameByte reports whether c may stand in a token, or begin one.
func isNameByte(c byte, begin bool) bool {
	return 'a' <= c && c <= 'z' || !begin && ('0' <= c && c <= '9' || c == '_')
}

// checkNameToken accepts one token of a subject or type name.
func checkNameToken(text string) string {
	if len(text) > subject.MaxToken {
		return "is longer than 64 bytes"
	}
	for i := range len(text) {
		if !isNameByte(text[i], i == 0) {
			return "must be a-z, 0-9 and _, beginning with a letter"
		}
	}
	if text == "" {
		return reasonRequired
	}
	return ""
}

// checkResource accepts what may name a resource or an ordering key.
func checkResource(text string) string {
	switch {
	case text == "":
		return reasonRequired
	case len(text) > maxResource:
		return "is longer than 256 bytes"
	}
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return checkRunes(text)
		}
		if text[i] < ' ' || text[i] == '\x7f' {
			return reasonControl
		}
	}
	return ""
}

// reasonControl is said of a text with control characters.
const reasonControl = "must not hold control characters"

// checkRunes is the part of checkResource for text beyond ASCII.
func checkRunes(text string) string {
	if !utf8.ValidString(text) {
		return "must be valid UTF-8"
	}
	for _, r := range text {
		if unicode.IsControl(r) {
			return reasonControl
		}
	}
	return ""
}

// checkID accepts what may be an id and therefore a header value: its bytes leave
// no way to end a header line, and nothing to normalise.
func checkID(text string) string {
	if len(text) > maxID {
		return "is longer than 128 bytes"
	}
	return checkIDBytes(text)
}

// checkIDBytes is [A-Za-z0-9][A-Za-z0-9._:@/+=-]*.
func checkIDBytes(text string) string {
	for i := range len(text) {
		if idBytes[text[i]] < idFirst && (i == 0 || idBytes[text[i]] == 0) {
			return "must be letters, digits and ._:@/+=-, beginning with a letter or digit"
		}
	}
	if text == "" {
		return reasonRequired
	}
	return ""
}

// Classes of bytes in ids: not at all, behind the first, anywhere.
const (
	idInner = 1
	idFirst = 2
)

// idBytes is constant: the class of every byte. Ids are a third of an envelope's
// text, and a table is the fastest way through them.
var idBytes = func() (table [256]byte) {
	for _, c := range []byte("._:@/+=-") {
		table[c] = idInner
	}
	for c := range table {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			table[c] = idFirst
		}
	}
	return table
}()

// checkContentType accepts JSON: the data is part of a JSON text.
func checkContentType(text string) string {
	if text == ContentTypeJSON {
		return ""
	}
	if checkMediaType(text) != "" || !strings.HasSuffix(text, "+json") {
		return "must be application/json, or a type/subtype that ends in +json, lower case, without parameters"
	}
	return ""
}

// checkMediaType accepts type/subtype of RFC 6838 in lower case. Media types
// ignore case, and one spelling of each leaves nothing to compare wrongly.
func checkMediaType(text string) string {
	major, minor, ok := strings.Cut(text, "/")
	if !ok || len(text) > maxMediaType || !isRestrictedName(major) || !isRestrictedName(minor) {
		return "must be type/subtype in lower case, without parameters, at most 127 bytes"
	}
	return ""
}

// isRestrictedName is the restricted-name of RFC 6838, section 4.2, lower case.
func isRestrictedName(text string) bool {
	for i := range len(text) {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte("!#$&-^_.+", c) >= 0:
		default:
			return false
		}
	}
	return text != ""
}
