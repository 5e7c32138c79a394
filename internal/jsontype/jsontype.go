// Package jsontype tells what encoding/json makes of a Go type, when a contract is
// declared rather than when the first message fails.
package jsontype

import (
	"encoding/json"
	"reflect"
	"slices"
)

// ToObject reports whether values of t may marshal to a JSON object: t is one of
// the kinds, or a pointer to such a type. A type that marshals itself is believed,
// so whoever asks looks at what it wrote.
func ToObject(t reflect.Type, kinds ...reflect.Kind) bool {
	return MarshalsItself(t) || slices.Contains(kinds, t.Kind()) ||
		t.Kind() == reflect.Pointer && ToObject(t.Elem(), kinds...)
}

// MarshalsItself reports whether t, or a pointer to it, has a MarshalJSON of its
// own.
func MarshalsItself(t reflect.Type) bool {
	marshaler := reflect.TypeFor[json.Marshaler]()
	return t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler)
}
