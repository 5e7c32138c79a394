package strictjson

import "bytes"

// maxKnown bounds a set of known names: membership is kept in one word.
const maxKnown = 64

// Names is an immutable set of known top-level names.
type Names struct {
	all [][]byte
	// byLength holds the indices of the names of each length: names differ in
	// length so well that one or two comparisons find the right one.
	byLength [][]int
}

// NewNames returns the set of the given names, at most 64 of at most 255 bytes.
// Members are reported by their index in names. It panics on more, since the
// names are constants of the program.
func NewNames(names ...string) *Names {
	if len(names) > maxKnown {
		panic("strictjson: more than 64 known names")
	}
	n := new(Names)
	for i, name := range names {
		n.all = append(n.all, []byte(name))
		for len(n.byLength) <= len(name) {
			n.byLength = append(n.byLength, nil)
		}
		n.byLength[len(name)] = append(n.byLength[len(name)], i)
	}
	return n
}

// index returns the index of the exactly equal known name, or -1. The guess is
// tried first: writers keep an order, and then every guess is right.
func (n *Names) index(name []byte, guess int) int {
	if guess < len(n.all) && string(n.all[guess]) == string(name) {
		return guess
	}
	if len(name) >= len(n.byLength) {
		return -1
	}
	for _, i := range n.byLength[len(name)] {
		if bytes.Equal(n.all[i], name) {
			return i
		}
	}
	return -1
}

// folded reports whether name equals a known name but for case.
func (n *Names) folded(name []byte) bool {
	for _, known := range n.all {
		if bytes.EqualFold(known, name) {
			return true
		}
	}
	return false
}
