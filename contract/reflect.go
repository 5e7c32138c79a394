package contract

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// generator makes the schema of one payload type.
type generator struct {
	root        reflect.Type
	definitions map[string]*Schema
	open        map[reflect.Type]bool   // named types under way
	names       map[reflect.Type]string // references to the recursive ones
	faults      []error
}

// schemaOf returns the schema of the JSON that encoding/json makes of a payload
// type, or all the fields that keep it from being one.
func schemaOf(t reflect.Type) (*Schema, error) {
	root := t
	for root.Kind() == reflect.Pointer {
		root = root.Elem()
	}
	g := &generator{
		root: root, definitions: map[string]*Schema{}, open: map[reflect.Type]bool{}, names: map[reflect.Type]string{},
	}
	s := g.payload(t)
	if len(g.faults) > 0 {
		return nil, errors.Join(g.faults...)
	}
	if len(g.definitions) > 0 {
		whole := *s
		whole.Definitions = g.definitions
		s = &whole
	}
	return s, nil
}

// payload is value for the whole data, which is an object.
func (g *generator) payload(t reflect.Type) *Schema {
	if t == reflect.TypeFor[json.RawMessage]() {
		return &Schema{Type: Types{typeObject}, AdditionalProperties: &Schema{}}
	}
	s := g.value(t, "")
	if len(g.faults) == 0 && !slices.Equal(s.Type, Types{typeObject}) {
		g.fault("", "is no JSON object: give it a method ContractSchema that describes one")
	}
	return s
}

// fault notes why the type at a Go path is no schema.
func (g *generator) fault(path, reason string) {
	at := fmt.Sprintf("field %s of %s", path, g.root)
	if path == "" {
		at = g.root.String()
	}
	g.faults = append(g.faults, fmt.Errorf("%s: %s", at, reason))
}

// value returns the schema of a type's values that are not nil.
func (g *generator) value(t reflect.Type, path string) *Schema {
	pointer := t.Kind() == reflect.Pointer
	for range maxPointers {
		if t.Kind() != reflect.Pointer {
			break
		}
		t = t.Elem()
	}
	if method := byPointer(t); method != "" && !pointer {
		g.fault(path, fmt.Sprintf("encoding/json calls the method %s of *%s only where it has a pointer: use *%[2]s, or declare the method for %[2]s", method, t))
		return &Schema{}
	}
	if s := g.special(t, path); s != nil {
		return s
	}
	if t.Name() == "" {
		return g.kind(t, path)
	}
	if ref, ok := g.names[t]; ok {
		return &Schema{Ref: ref}
	}
	if g.open[t] {
		g.names[t] = g.name(t)
		return &Schema{Ref: g.names[t]}
	}
	g.open[t] = true
	s := g.kind(t, path)
	delete(g.open, t)
	ref, recursive := g.names[t]
	if name, ok := strings.CutPrefix(ref, definitionPrefix); recursive && ok {
		g.definitions[name] = s
		return &Schema{Ref: ref}
	}
	return s
}

// byPointer names the method by which only the pointer to t marshals itself.
func byPointer(t reflect.Type) string {
	for _, marshaler := range []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[encoding.TextMarshaler]()} {
		if !t.Implements(marshaler) && reflect.PointerTo(t).Implements(marshaler) {
			return marshaler.Method(0).Name
		}
	}
	return ""
}

// maxPointers is more than what anybody writes; a pointer type that points to
// itself has no end.
const maxPointers = 8

// name returns the reference to a recursive type.
func (g *generator) name(t reflect.Type) string {
	if t == g.root {
		return "#"
	}
	base := strings.Map(func(r rune) rune {
		if isDefinition(string(r)) {
			return r
		}
		return '_'
	}, t.Name())
	taken := slices.Collect(maps.Values(g.names))
	for n := 1; ; n++ {
		ref := definitionPrefix + base
		if n > 1 {
			ref += fmt.Sprint(n)
		}
		if !slices.Contains(taken, ref) {
			return ref
		}
	}
}

// describer is a type that says itself what it is as JSON.
type describer interface{ ContractSchema() string }

// enumerated is a text type with a closed set of values.
type enumerated interface{ ContractEnum() []string }

// special returns the schema of a type that is not what its kind says, or nil.
func (g *generator) special(t reflect.Type, path string) *Schema {
	switch t {
	case reflect.TypeFor[time.Time]():
		return &Schema{Type: Types{typeString}, Format: "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return &Schema{}
	case reflect.TypeFor[json.Number]():
		return &Schema{Type: Types{typeNumber}}
	}
	if t.Kind() == reflect.Interface {
		return nil
	}
	zero := reflect.New(t).Interface()
	if d, ok := zero.(describer); ok {
		s, err := ParseSchema([]byte(d.ContractSchema()))
		switch {
		case err != nil:
			g.fault(path, "its method ContractSchema: "+strings.TrimPrefix(err.Error(), "contract: "))
		case s.Definitions != nil || s.Ref != "":
			g.fault(path, "its method ContractSchema: definitions and $ref are for generated schemas")
		default:
			return s
		}
		return &Schema{}
	}
	_, isText := zero.(encoding.TextMarshaler)
	if e, ok := zero.(enumerated); ok && (t.Kind() != reflect.Struct || isText) { // else it is that of an embedded field
		return g.enum(t, path, e, isText)
	}
	if _, ok := zero.(json.Marshaler); ok {
		g.fault(path, fmt.Sprintf("%s marshals itself: give it a method ContractSchema() string, or the field a tag such as contract:\"type=string\"", t))
		return &Schema{}
	}
	if isText {
		s := &Schema{Type: Types{typeString}}
		if t.Name() == "UUID" && t.Kind() == reflect.Array && t.Len() == 16 {
			s.Format = "uuid"
		}
		return s
	}
	return nil
}

// enum returns the schema of a closed set of texts.
func (g *generator) enum(t reflect.Type, path string, e enumerated, isText bool) *Schema {
	values := e.ContractEnum()
	if t.Kind() != reflect.String && !isText || len(values) == 0 {
		g.fault(path, fmt.Sprintf("the method ContractEnum of %s is for types that are text, and lists at least one value", t))
	}
	return &Schema{Type: Types{typeString}, Enum: anyOf(values)}
}

// anyOf returns the values of an enum, sorted, so that their order means nothing.
func anyOf(values []string) []any {
	values = slices.Compact(slices.Sorted(slices.Values(values)))
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = v
	}
	return all
}

// kind returns the schema of what encoding/json makes of a kind.
func (g *generator) kind(t reflect.Type, path string) *Schema {
	switch t.Kind() {
	case reflect.Bool:
		return &Schema{Type: Types{typeBoolean}}
	case reflect.Int, reflect.Int64:
		return &Schema{Type: Types{typeInteger}}
	case reflect.Int8, reflect.Int16, reflect.Int32:
		half := math.Pow(2, float64(t.Bits()-1))
		return &Schema{Type: Types{typeInteger}, Minimum: new(-half), Maximum: new(half - 1)}
	case reflect.Uint, reflect.Uint64, reflect.Uintptr:
		return &Schema{Type: Types{typeInteger}, Minimum: new(0.0)}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return &Schema{Type: Types{typeInteger}, Minimum: new(0.0), Maximum: new(math.Pow(2, float64(t.Bits())) - 1)}
	case reflect.Float32, reflect.Float64:
		return &Schema{Type: Types{typeNumber}}
	case reflect.String:
		return &Schema{Type: Types{typeString}}
	case reflect.Interface:
		if t.NumMethod() > 0 {
			g.fault(path, fmt.Sprintf("%s is an interface with methods, which nobody can read back: use a concrete type, or json.RawMessage for any value", t))
		}
		return &Schema{}
	case reflect.Struct:
		return g.structure(t, path)
	case reflect.Map:
		return g.mapping(t, path)
	case reflect.Slice, reflect.Array:
		return g.list(t, path)
	}
	g.fault(path, fmt.Sprintf("a %s has no JSON; leave it out with json:\"-\"", t))
	return &Schema{}
}

// list returns the schema of a slice or an array.
func (g *generator) list(t reflect.Type, path string) *Schema {
	if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 && g.plain(t.Elem()) {
		return &Schema{Type: Types{typeString}, ContentEncoding: "base64"}
	}
	s := &Schema{Type: Types{typeArray}, Items: g.element(t.Elem(), path+"[]")}
	if t.Kind() == reflect.Array {
		s.MinItems, s.MaxItems = new(float64(t.Len())), new(float64(t.Len()))
	}
	return s
}

// plain reports whether a type does not marshal itself.
func (g *generator) plain(t reflect.Type) bool {
	zero := reflect.New(t).Interface()
	_, own := zero.(json.Marshaler)
	_, text := zero.(encoding.TextMarshaler)
	return !own && !text
}

// mapping returns the schema of a map.
func (g *generator) mapping(t reflect.Type, path string) *Schema {
	_, isText := reflect.New(t.Key()).Interface().(encoding.TextMarshaler)
	if t.Key().Kind() != reflect.String && !isText {
		g.fault(path, fmt.Sprintf("the keys of %s are no strings: use a map with string keys", t))
	}
	return &Schema{Type: Types{typeObject}, AdditionalProperties: g.element(t.Elem(), path+"{}")}
}

// element returns the schema of what a list or a map holds.
func (g *generator) element(t reflect.Type, path string) *Schema {
	s := g.value(t, path)
	if g.canBeNil(t) {
		return s.nullable()
	}
	return s
}

// canBeNil reports whether encoding/json writes null for some values of a type.
func (g *generator) canBeNil(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer:
		return true
	case reflect.Slice, reflect.Map:
		return g.plain(t)
	}
	return false
}

// structure returns the schema of a struct.
func (g *generator) structure(t reflect.Type, path string) *Schema {
	s := &Schema{Type: Types{typeObject}, Properties: map[string]*Schema{}}
	fields, faults := fieldsOf(t)
	join := func(inner string) string { return strings.TrimPrefix(path+"."+inner, ".") }
	for _, err := range faults {
		at, reason, _ := strings.Cut(err.Error(), ": ")
		g.fault(join(at), reason)
	}
	for _, f := range fields {
		s.Properties[f.name] = g.field(f, join(f.path))
		if !f.omitted && !f.optional {
			s.Required = append(s.Required, f.name)
		}
	}
	slices.Sort(s.Required)
	return s
}

// quoted returns the schema of what the option string of a tag writes: the value's
// JSON as text. The pattern tells apart what would all be strings.
func quoted(t reflect.Type) *Schema {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	pattern := `^-?[0-9]+$`
	switch kind := t.Kind(); {
	case kind == reflect.Bool:
		pattern = `^(true|false)$`
	case kind == reflect.Float32, kind == reflect.Float64, t == reflect.TypeFor[json.Number]():
		pattern = `^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$`
	case kind == reflect.String:
		pattern = `^".*"$`
	}
	return &Schema{Type: Types{typeString}, Pattern: pattern}
}

// field returns the schema of a member of a struct.
func (g *generator) field(f field, path string) *Schema {
	set := g.settings(f.tag, path)
	var s *Schema
	switch named := set[tagType]; {
	case named != "":
		s = g.tagged(named, f.tag, path)
	case f.quoted:
		s = quoted(f.typ)
	default:
		s = g.value(f.typ, path)
	}
	s = g.narrow(s, set, f.tag, path)
	if !f.omitted && g.canBeNil(f.typ) {
		return s.nullable()
	}
	return s
}
