package contract

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// field is one member of the JSON object that encoding/json makes of a struct.
type field struct {
	name     string
	typ      reflect.Type
	path     string // in Go, from the struct
	tag      string // our own
	depth    int    // how deep it is embedded
	tagged   bool   // it is named by its tag
	omitted  bool   // by omitempty or omitzero
	optional bool   // it is missing where a pointer that it is embedded by is nil
	quoted   bool   // written as a string
}

// fieldsOf returns the members of a struct by the rules of encoding/json: embedded
// structs are flattened; of several members of one name the least embedded wins,
// of those the one that has it by a tag, and of several of those none.
func fieldsOf(t reflect.Type) ([]field, []error) {
	var w walk
	w.structure(t, field{}, nil)
	byName := map[string][]field{}
	var names []string
	for _, f := range w.found {
		if byName[f.name] == nil {
			names = append(names, f.name)
		}
		byName[f.name] = append(byName[f.name], f)
	}
	var winners []field
	for _, name := range names {
		if f, ok := dominant(byName[name]); ok {
			winners = append(winners, f)
		}
	}
	return winners, w.faults
}

// dominant returns the member that a name means, if it means one.
func dominant(all []field) (field, bool) {
	rank := func(f field) int {
		if f.tagged {
			return 2 * f.depth
		}
		return 2*f.depth + 1
	}
	slices.SortStableFunc(all, func(a, b field) int { return rank(a) - rank(b) })
	return all[0], len(all) == 1 || rank(all[0]) < rank(all[1])
}

// walk collects members.
type walk struct {
	found  []field
	faults []error
}

// structure adds the members of t, which is embedded as outer says.
func (w *walk) structure(t reflect.Type, outer field, above []reflect.Type) {
	if slices.Contains(above, t) {
		return // embedded in itself by a pointer
	}
	above = append(slices.Clone(above), t)
	for i := range t.NumField() {
		sf := t.Field(i)
		inner := sf.Type
		pointer := inner.Kind() == reflect.Pointer && inner.Name() == ""
		if pointer {
			inner = inner.Elem()
		}
		if !sf.IsExported() && (!sf.Anonymous || inner.Kind() != reflect.Struct) || sf.Tag.Get("json") == "-" {
			continue
		}
		f := field{
			typ: sf.Type, path: strings.TrimPrefix(outer.path+"."+sf.Name, "."), tag: sf.Tag.Get("contract"),
			depth: outer.depth, optional: outer.optional,
		}
		f.readTag(sf.Tag.Get("json"), sf.Type)
		if sf.Anonymous && !f.tagged && inner.Kind() == reflect.Struct {
			if pointer && !sf.IsExported() {
				w.faults = append(w.faults, fmt.Errorf("%s: encoding/json cannot set an embedded pointer to an unexported struct; embed the struct itself", f.path))
				continue
			}
			f.depth, f.optional = f.depth+1, f.optional || pointer
			w.structure(inner, f, above)
			continue
		}
		if !f.tagged {
			f.name = sf.Name
		}
		w.found = append(w.found, f)
	}
}

// readTag reads what encoding/json reads.
func (f *field) readTag(tag string, t reflect.Type) {
	name, options, _ := strings.Cut(tag, ",")
	if isJSONName(name) {
		f.name, f.tagged = name, true
	}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitzero":
			f.omitted = true
		case "omitempty": // which does nothing for a struct or an array
			f.omitted = f.omitted || t.Kind() != reflect.Struct && (t.Kind() != reflect.Array || t.Len() == 0)
		case "string":
			if t.Kind() == reflect.Pointer {
				t = t.Elem()
			}
			f.quoted = t.Kind() >= reflect.Bool && t.Kind() <= reflect.Float64 || t.Kind() == reflect.String
		}
	}
}

// isJSONName tells the names that encoding/json takes from a tag.
func isJSONName(name string) bool {
	for _, r := range name {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return false
		}
	}
	return name != ""
}
