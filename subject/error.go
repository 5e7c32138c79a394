package subject

import (
	"strconv"
	"unicode/utf8"
)

// maxInput bounds how much of a refused text an [Error] keeps, in bytes. A
// subject fits with room to spare; what is longer is not a subject and does not
// belong into logs in full.
const maxInput = 160

// Error tells which text was refused, and what to write instead. Every error of
// this package is an *Error or an errors.Join of several, one per fault, so
// errors.AsType[*Error] finds the first.
//
// An Error is immutable by convention and safe for concurrent use.
type Error struct {
	// What names the refused part: "subject", "filter", "service", "action",
	// "entity", "verb", "operation", "original", "durable", "letter id" or "site".
	What string
	// Input is the refused text, shortened to 160 bytes with "…" at the cut. It
	// may hold any byte, since it is foreign; Error() quotes it.
	Input string
	// Reason says what is wrong and what to do about it.
	Reason string
}

// Error returns `subject: <what> "<input>": <reason>` with the input quoted, so
// that control characters of a foreign subject never reach a log line.
func (e *Error) Error() string {
	return "subject: " + e.What + " " + strconv.Quote(e.Input) + ": " + e.Reason
}

// newError is the one place where an Error is made, so that no input escapes
// shortening.
func newError(what, input, reason string) *Error {
	return &Error{What: what, Input: shorten(input), Reason: reason}
}

// shorten cuts text to maxInput bytes, at a rune border.
func shorten(text string) string {
	if len(text) <= maxInput {
		return text
	}
	cut := maxInput
	for cut > maxInput-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
