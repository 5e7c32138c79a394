package strictjson

import "bytes"

// MaxMembers is how many members the top-level object may have. Unknown names
// are compared with each other; without a bound 512 KiB of them would cost
// minutes.
const MaxMembers = 128

// Object walks over the members of a top-level object:
//
//	o := strictjson.NewObject(data, names)
//	for o.Next() {
//		use(o.Known(), o.Kind(), o.Raw())
//	}
//	err := o.Err()
//
// What it returns aliases the input. Members seen before an error came from a
// text that is not acceptable as a whole: use nothing until Err has returned nil.
type Object struct {
	scan    scanner
	names   *Names
	seen    uint64   // bit per known name
	members int      // how many so far
	strange [][]byte // unknown names, unescaped

	// The present member. Positions are kept instead of slices: storing a
	// pointer costs more than making one when it is asked for. The value ends
	// where the scanner stands.
	known      int
	name, from int // where name and value begin, quotes included
	nameEnd    int
	kind       Kind
	escaped    bool
	finished   bool
}

// NewObject returns an Object over data. Nothing is read yet.
func NewObject(data []byte, names *Names) Object {
	return Object{scan: scanner{data: data}, names: names, known: -1}
}

// Next moves to the next member. It returns false at the end of the text or at
// the first fault; Err tells which.
func (o *Object) Next() bool {
	if o.finished || o.scan.fault != nil {
		return false
	}
	if o.members == 0 {
		return o.begin() && o.member()
	}
	switch o.scan.peek() {
	case ',':
		o.scan.pos++
		return o.member()
	case '}':
		return o.finish()
	}
	return o.scan.unexpected("a comma or }")
}

// begin enters the object. It returns false when there is no member in it.
func (o *Object) begin() bool {
	if !o.scan.take('{', "an object") {
		return false
	}
	o.scan.depth = 1
	if o.scan.peek() == '}' {
		return o.finish()
	}
	return true
}

// finish leaves the object and accepts nothing more. It always returns false.
func (o *Object) finish() bool {
	o.scan.pos++
	o.finished = true
	o.scan.end()
	return false
}

// member accepts a name, its colon and its value.
func (o *Object) member() bool {
	s := &o.scan
	if o.members++; o.members > MaxMembers {
		return s.fail(s.pos, "object has more than 128 members")
	}
	if s.peek() != '"' {
		return s.unexpected("a name in quotes")
	}
	o.name = s.pos
	escaped, ok := s.str()
	if !ok {
		return false
	}
	o.nameEnd = s.pos
	return o.identify(escaped) && s.take(':', "a colon") && o.read()
}

// read accepts the member's value.
func (o *Object) read() (ok bool) {
	s := &o.scan
	first := s.peek()
	o.from = s.pos
	if first == '"' {
		o.kind = KindString
		o.escaped, ok = s.str()
		return ok
	}
	o.escaped = false
	o.kind, ok = s.value()
	return ok
}

// identify finds the known name, or sees to it that an unknown one cannot be
// taken for any other.
func (o *Object) identify(escaped bool) bool {
	name, at := o.Name(), o.name+1
	if escaped {
		name = AppendUnescaped(nil, name)
	}
	o.known = o.names.index(name, o.known+1)
	if o.known >= 0 {
		bit := uint64(1) << o.known
		if o.seen&bit != 0 {
			return o.scan.fail(at, "name comes twice")
		}
		o.seen |= bit
		return true
	}
	if o.names.folded(name) {
		return o.scan.fail(at, "name equals a known name but for case")
	}
	for _, other := range o.strange {
		if bytes.EqualFold(other, name) {
			return o.scan.fail(at, "name comes twice, if only in another case")
		}
	}
	if o.strange == nil {
		o.strange = make([][]byte, 0, 8) // in one piece rather than by doubling
	}
	o.strange = append(o.strange, name)
	return true
}

// Known returns the index of the member's name in the known names, or -1.
func (o *Object) Known() int { return o.known }

// Name returns the member's name as it stands between its quotes, still escaped.
func (o *Object) Name() []byte { return o.scan.data[o.name+1 : o.nameEnd-1] }

// Kind returns the kind of the member's value.
func (o *Object) Kind() Kind { return o.kind }

// Raw returns all of the member's value, the quotes of a string included.
func (o *Object) Raw() []byte { return o.scan.data[o.from:o.scan.pos] }

// Span returns where in the input Raw begins and ends.
func (o *Object) Span() (from, to int) { return o.from, o.scan.pos }

// Escaped reports whether the value is a string with escapes.
func (o *Object) Escaped() bool { return o.escaped }

// Err returns the first fault, or nil when the text is acceptable as far as it
// was read. It is final once Next has returned false.
func (o *Object) Err() error {
	if o.scan.fault == nil {
		return nil
	}
	return o.scan.fault
}

// Check accepts one value of any kind that stands inside depth containers
// already, and returns its kind.
func Check(data []byte, depth int) (Kind, error) {
	s := scanner{data: data, depth: depth}
	kind, ok := s.value()
	if ok {
		s.end()
	}
	if s.fault != nil {
		return 0, s.fault
	}
	return kind, nil
}
