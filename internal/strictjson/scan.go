package strictjson

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is how many objects and arrays may be open at once, the outermost
// included. It is the number of bits in scanner.objects.
const MaxDepth = 64

// scanner walks over a text once. Its methods move pos behind what they accept,
// or record the first fault and return false; the fault is sticky.
type scanner struct {
	data []byte
	pos  int
	// depth is the number of open containers. Which of them are objects is kept
	// in a bit per level, so that a nested value needs neither recursion nor an
	// allocated stack: a depth bomb costs its length and nothing else.
	depth   int
	objects uint64
	fault   *Error
}

// fail records a fault at offset at.
func (s *scanner) fail(at int, reason string) bool {
	if s.fault == nil {
		s.fault = &Error{Offset: at, Reason: reason}
	}
	return false
}

// unexpected fails at pos, telling the end of the text from a wrong byte.
func (s *scanner) unexpected(wanted string) bool {
	if s.pos >= len(s.data) {
		return s.fail(s.pos, "text ends where "+wanted+" is expected")
	}
	return s.fail(s.pos, wanted+" is expected here")
}

// space skips white space.
func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, 0 at the end. A 0 in the text
// begins nothing either, so the two need no telling apart.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) && s.data[s.pos] > ' ' {
		return s.data[s.pos]
	}
	s.space()
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// take skips white space and the byte c, or fails.
func (s *scanner) take(c byte, wanted string) bool {
	if s.peek() != c {
		return s.unexpected(wanted)
	}
	s.pos++
	return true
}

// end accepts white space up to the end of the text.
func (s *scanner) end() bool {
	s.space()
	if s.pos < len(s.data) {
		return s.fail(s.pos, "text goes on behind the value")
	}
	return true
}

// value accepts one value of any kind with everything in it, white space before
// it included.
func (s *scanner) value() (Kind, bool) {
	switch c := s.peek(); c {
	case '"':
		_, ok := s.str()
		return KindString, ok
	case '{':
		return KindObject, s.container()
	case '[':
		return KindArray, s.container()
	default:
		return s.scalar(c)
	}
}

// scalar accepts a literal or a number that begins with c.
func (s *scanner) scalar(c byte) (Kind, bool) {
	switch c {
	case 't':
		return KindBool, s.literal("true")
	case 'f':
		return KindBool, s.literal("false")
	case 'n':
		return KindNull, s.literal("null")
	}
	if c == '-' || isDigit(c) {
		return KindNumber, s.number()
	}
	return 0, s.unexpected("a value")
}

// literal accepts the given word.
func (s *scanner) literal(word string) bool {
	rest := s.data[s.pos:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word {
		return s.unexpected(word)
	}
	s.pos += len(word)
	return true
}

// container accepts an object or array, whose opening bracket is next, and
// everything in it. It loops instead of calling itself: each turn of the loop
// stands before a value.
func (s *scanner) container() bool {
	base := s.depth
	for {
		opened, ok := s.element()
		if !ok {
			return false
		}
		if opened {
			continue
		}
		if !s.close(base) {
			return false
		}
		if s.depth == base {
			return true
		}
	}
}

// element accepts a scalar, or opens a container and, unless it is empty, moves
// to its first value and says so.
func (s *scanner) element() (opened, ok bool) {
	switch c := s.peek(); c {
	case '"':
		_, ok = s.str()
		return false, ok
	case '{':
		if !s.open(1) {
			return false, false
		}
		if s.peek() == '}' {
			return false, true // close will take it
		}
		return true, s.name()
	case '[':
		if !s.open(0) {
			return false, false
		}
		return s.peek() != ']', true
	default:
		_, ok = s.scalar(c)
		return false, ok
	}
}

// open enters the container at pos; object is 1 for an object, 0 for an array.
func (s *scanner) open(object uint64) bool {
	if s.depth == MaxDepth {
		return s.fail(s.pos, "more than 64 levels are nested")
	}
	s.objects = s.objects<<1 | object
	s.depth++
	s.pos++
	return true
}

// close stands behind a value, or at the bracket of an empty container. It closes
// containers until a comma asks for the next value, or until only base are open.
// Behind a comma stands a value again, so a trailing comma is refused there.
func (s *scanner) close(base int) bool {
	for s.depth > base {
		inObject := s.objects&1 == 1
		switch c := s.peek(); {
		case c == ',':
			s.pos++
			return !inObject || s.name()
		case c == '}' && inObject, c == ']' && !inObject:
			s.pos++
			s.depth--
			s.objects >>= 1
		case inObject:
			return s.unexpected("a comma or }")
		default:
			return s.unexpected("a comma or ]")
		}
	}
	return true
}

// name accepts a name and its colon.
func (s *scanner) name() bool {
	if s.peek() != '"' {
		return s.unexpected("a name in quotes")
	}
	if _, ok := s.str(); !ok {
		return false
	}
	return s.take(':', "a colon")
}

// number accepts a number as in RFC 8259, section 6.
func (s *scanner) number() bool {
	if s.at('-') {
		s.pos++
	}
	if s.at('0') {
		s.pos++ // no digit may follow a leading zero; what does is refused later
	} else if !s.digits() {
		return false
	}
	if s.at('.') {
		s.pos++
		if !s.digits() {
			return false
		}
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		return s.digits()
	}
	return true
}

// at reports whether c is the next byte.
func (s *scanner) at(c byte) bool { return s.pos < len(s.data) && s.data[s.pos] == c }

// digits accepts one digit or more.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && isDigit(s.data[s.pos]) {
		s.pos++
	}
	return s.pos > start || s.unexpected("a digit")
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// str accepts a string whose opening quote is next, and tells whether it holds
// escapes. Nearly every string is short ASCII without escapes, which this loop
// finishes by itself, eight bytes at a step; the rest is for strSlow.
func (s *scanner) str() (escaped, ok bool) {
	i, data := s.pos+1, s.data
	for ; len(data)-i >= 8; i += 8 {
		special := attention(binary.LittleEndian.Uint64(data[i:]))
		if special == 0 {
			continue
		}
		i += bits.TrailingZeros64(special) / 8
		if data[i] != '"' {
			break
		}
		s.pos = i + 1
		return false, true
	}
	s.pos = i
	return s.strSlow()
}

// Eight bytes at a time: a bit pattern per lane.
const (
	lanesLow   = 0x0101010101010101
	lanesHigh  = 0x8080808080808080
	lanesQuote = lanesLow * '"'
	lanesSlash = lanesLow * '\\'
	lanesSpace = lanesLow * ' '
)

// attention sets the high bit of the lowest lane of x that holds a quote, a
// backslash, a control character or a byte beyond ASCII, and is 0 when no lane
// does. A subtraction sets the high bit of the lane where the byte was below the
// subtrahend; a byte beyond ASCII keeps its own in at least one of the three. A
// borrow can set it wrongly only in lanes above such a one, so no other bit means
// anything.
func attention(x uint64) uint64 {
	return ((x - lanesSpace) | ((x ^ lanesQuote) - lanesLow) | ((x ^ lanesSlash) - lanesLow)) & lanesHigh
}

// strSlow accepts the rest of a string of any kind.
func (s *scanner) strSlow() (escaped, ok bool) {
	for {
		s.plain()
		if s.pos >= len(s.data) {
			return false, s.fail(s.pos, "text ends inside a string")
		}
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return escaped, true
		case c == '\\':
			escaped = true
			if !s.escape() {
				return false, false
			}
		case c < ' ':
			return false, s.fail(s.pos, "control character in a string")
		default:
			if !s.multibyte() {
				return false, false
			}
		}
	}
}

// plain skips ASCII that needs no attention.
func (s *scanner) plain() {
	i, data := s.pos, s.data
	for len(data)-i >= 8 {
		if special := attention(binary.LittleEndian.Uint64(data[i:])); special != 0 {
			s.pos = i + bits.TrailingZeros64(special)/8
			return
		}
		i += 8
	}
	for i < len(data) && data[i] >= ' ' && data[i] != '"' && data[i] != '\\' && data[i] < utf8.RuneSelf {
		i++
	}
	s.pos = i
}

// multibyte accepts one rune of valid UTF-8 beyond ASCII. Surrogates and overlong
// forms are none.
func (s *scanner) multibyte() bool {
	r, size := utf8.DecodeRune(s.data[s.pos:])
	if r == utf8.RuneError && size == 1 {
		return s.fail(s.pos, "invalid UTF-8 in a string")
	}
	s.pos += size
	return true
}
