package subject

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of the wire contract, in bytes.
const (
	// MaxToken is the length of the longest token of the families, and so of an
	// action, an entity, a verb, an operation and a durable.
	MaxToken = 64
	// MaxSite is the length of the longest name of a site.
	MaxSite = 32
	// MaxLength is the length that no subject exceeds, dead letters excepted,
	// which embed an original.
	MaxLength = 255
	// MaxOriginal is the length of the longest original subject that a dead
	// letter can embed. A NATS protocol line holds 4096 bytes; the rest is for
	// the dead letter's own prefix, the reply subject and the sizes, which stand
	// on the same line when it is published.
	MaxOriginal = 3584
	// maxText bounds every subject and filter: the longest dead letter.
	maxText = MaxOriginal + MaxLength
)

// tokenRemedy is what a complaint about a token ends with.
const tokenRemedy = "use lower-case letters, digits and _, starting with a letter"

// wildcardRemedy is for a pattern where a concrete subject is needed.
const wildcardRemedy = "publish to a concrete subject; a pattern is a Filter"

// forbidden are the bytes that the server accepts in no subject and no filter.
const forbidden = " \t\r\n\f"

// tokenFault returns what is wrong with a token of our own families, or "".
// Accepting a token allocates nothing.
func tokenFault(token string) string {
	switch {
	case token == "":
		return "is empty: " + tokenRemedy
	case len(token) > MaxToken:
		return fmt.Sprintf("is %d bytes long: shorten it to at most %d", len(token), MaxToken)
	}
	for i := range len(token) {
		if !tokenByte(token[i], i == 0) {
			return byteFault(token, i)
		}
	}
	return ""
}

// siteFault returns what is wrong with the name of a site, or "". The words that
// tell families apart are reserved: with one of them in the place of the service,
// a filter over all services, such as dv.*.dlq.>, would match what waits for that
// site.
func siteFault(site string) string {
	switch {
	case familyOf(site) != 0:
		return "is a word that names a family of subjects: use another name"
	case len(site) > MaxSite:
		return fmt.Sprintf("is %d bytes long: shorten it to at most %d", len(site), MaxSite)
	}
	return tokenFault(site)
}

// siteRoot begins what waits for another site. No service has that name, so that no
// stream and no filter of a service holds it.
const siteRoot = root + "." + areaXDC + "."

// siteHead returns everything before the action of a command to a site, with the dot.
func siteHead(site string, s Service) string {
	return siteRoot + site + "." + s.String() + "." + FamilyCommand.shape().token + "."
}

// tokenByte reports whether c may stand in a token, or open one.
func tokenByte(c byte, first bool) bool {
	if 'a' <= c && c <= 'z' {
		return true
	}
	return !first && ('0' <= c && c <= '9' || c == '_')
}

// byteFault explains the first bad byte of a token. The frequent mistakes get a
// text of their own, since "bad character" does not say what to do.
func byteFault(token string, at int) string {
	switch c := token[at]; {
	case c == '*' || c == '>':
		return "holds a wildcard: " + wildcardRemedy
	case c == '.':
		return "holds a dot and would be several tokens: " + tokenRemedy
	case 'A' <= c && c <= 'Z':
		return "holds an upper-case letter: " + tokenRemedy
	case at == 0 && tokenByte(c, false):
		return fmt.Sprintf("starts with %q: %s", c, tokenRemedy)
	}
	// Everything before the bad byte is ASCII, so a rune begins there.
	r, _ := utf8.DecodeRuneInString(token[at:])
	return fmt.Sprintf("holds %q: %s", r, tokenRemedy)
}

// letterFault returns what is wrong with a letter id, or "". The form is that
// of a dead letter's identity, l and the first 40 hex digits of a SHA-256; it
// is a token too.
func letterFault(id string) string {
	const digits = 40
	ok := len(id) == 1+digits && id[0] == 'l'
	for i := 1; ok && i < len(id); i++ {
		ok = '0' <= id[i] && id[i] <= '9' || 'a' <= id[i] && id[i] <= 'f'
	}
	if ok {
		return ""
	}
	return "is no letter id: use l followed by 40 lower-case hex digits"
}

// originalFault returns why text cannot be embedded in a dead letter, or "".
// The naming rules do not apply: what breaks them is just what ends up here.
func originalFault(text string) string {
	if len(text) > MaxOriginal {
		return fmt.Sprintf("is %d bytes long: a dead letter embeds at most %d", len(text), MaxOriginal)
	}
	if fault := concreteFault(text); fault != "" {
		return fault
	}
	// A letter about a letter would grow with every failure. A replay that fails
	// gets a letter under the original subject of the first one.
	first, rest, _ := strings.Cut(text, ".")
	_, rest, _ = strings.Cut(rest, ".")
	third, _, more := strings.Cut(rest, ".")
	switch f := familyOf(third); {
	case first != root || !more:
		return ""
	case f == FamilyDeadLetter || f == FamilyDeadLetterMark || f == FamilyReplay:
		return "is a " + f.String() + " itself: use the subject that the message was first published to"
	}
	return ""
}

// concreteFault returns why text is no concrete NATS subject, or "". These are
// the rules of the server, not ours.
func concreteFault(text string) string {
	if text == "" {
		return "is empty: use the subject that the message was published to"
	}
	if i := strings.IndexAny(text, forbidden); i >= 0 {
		return fmt.Sprintf("holds %q, which no NATS subject can: remove it", text[i])
	}
	for token := range strings.SplitSeq(text, ".") {
		switch token {
		case "":
			return "has an empty token: remove the leading, trailing or double dot"
		case "*", ">":
			return "holds a wildcard: " + wildcardRemedy
		}
	}
	return ""
}
