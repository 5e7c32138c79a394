package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// Schema is a JSON Schema of the subset of draft-07 that Go types need: what a
// reader may rely on, and what [Compare] understands. Objects are always open:
// readers ignore fields that they do not know (requirement E4), so there is no
// additionalProperties false. An empty Schema is any value.
type Schema struct {
	// Ref is "#" or "#/definitions/<name>"; everything else is empty then, at the
	// root excepted.
	Ref string `json:"$ref,omitempty"`
	// Title and Description are for people; they may change.
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	// Type lists the JSON types that are allowed; none allows all.
	Type Types `json:"type,omitempty"`
	// Format narrows a string: "date-time", "uuid".
	Format string `json:"format,omitempty"`
	// ContentEncoding is "base64" where a string holds bytes.
	ContentEncoding string `json:"contentEncoding,omitempty"`
	// Pattern is a regular expression that a string matches.
	Pattern string `json:"pattern,omitempty"`
	// Enum lists the values that are allowed: strings, numbers, booleans, null.
	Enum []any `json:"enum,omitempty"`
	// Bounds of numbers, of the length of strings and of the length of arrays.
	Minimum   *float64 `json:"minimum,omitempty"`
	Maximum   *float64 `json:"maximum,omitempty"`
	MinLength *float64 `json:"minLength,omitempty"`
	MaxLength *float64 `json:"maxLength,omitempty"`
	MinItems  *float64 `json:"minItems,omitempty"`
	MaxItems  *float64 `json:"maxItems,omitempty"`
	// Items is the schema of an array's elements.
	Items *Schema `json:"items,omitempty"`
	// Properties are an object's fields, and Required those that are always there.
	Properties map[string]*Schema `json:"properties,omitempty"`
	Required   []string           `json:"required,omitempty"`
	// AdditionalProperties is the schema of the values of a map.
	AdditionalProperties *Schema `json:"additionalProperties,omitempty"`
	// AnyOf allows what one of several schemas allows.
	AnyOf []*Schema `json:"anyOf,omitempty"`
	// Definitions are the schemas that Ref names; at the root only.
	Definitions map[string]*Schema `json:"definitions,omitempty"`
}

// The JSON types.
const (
	typeNull    = "null"
	typeBoolean = "boolean"
	typeObject  = "object"
	typeArray   = "array"
	typeNumber  = "number"
	typeInteger = "integer"
	typeString  = "string"
)

// Types is one JSON type, written as a string, or several, written as an array.
type Types []string

// MarshalJSON writes a lone type as a string.
func (t Types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

// UnmarshalJSON reads both forms.
func (t *Types) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = Types{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// ParseSchema reads a schema of the subset strictly: another keyword is an error,
// since nobody would know what its change means.
func ParseSchema(data []byte) (*Schema, error) {
	s, err := decodeStrict[Schema](data)
	if err != nil {
		return nil, fmt.Errorf("contract: parse schema: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("contract: parse schema: %w", err)
	}
	return s, nil
}

// maxFile bounds a list of contracts in bytes; a large service needs some hundred
// kilobytes.
const maxFile = 8 << 20

// decodeStrict reads one JSON value into a T that knows all its names.
func decodeStrict[T any](data []byte) (*T, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), maxFile)
	}
	if kind, err := strictjson.Check(data, 0); err != nil {
		return nil, err
	} else if kind != strictjson.KindObject {
		return nil, fmt.Errorf("is %s, must be a JSON object", kind)
	}
	if name, twice := repeatedName(json.NewDecoder(bytes.NewReader(data))); twice { // of a merge that went wrong
		return nil, fmt.Errorf("the name %s stands in one object twice", clip(name))
	}
	v := new(T)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return v, nil
}

// repeatedName finds a name that an object has twice, in the next value of text that
// is JSON. encoding/json would take the last.
func repeatedName(dec *json.Decoder) (name string, twice bool) {
	open, _ := dec.Token()
	if _, container := open.(json.Delim); !container {
		return "", false
	}
	names := map[string]bool{}
	for dec.More() {
		if open == json.Delim('{') {
			token, err := dec.Token()
			name, _ := token.(string)
			if err != nil {
				return "", false
			}
			if names[name] {
				return name, true
			}
			names[name] = true
		}
		if name, twice := repeatedName(dec); twice {
			return name, true
		}
	}
	_, _ = dec.Token()
	return "", false
}

// check returns what keeps a schema from being compared or written out.
func (s *Schema) check() error {
	if s == nil {
		return errors.New("is missing")
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(s.Definitions)) {
		if !isDefinition(name) {
			faults = append(faults, fmt.Errorf("definitions: %q is no name: use letters, digits and _", name))
		}
		faults = append(faults, s.checkNode(s.Definitions[name], "definitions."+name, false))
	}
	return errors.Join(append(faults, s.checkNode(s, "schema", true))...)
}

// isDefinition reports whether a name can stand in a reference as it is.
func isDefinition(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// checkNode checks one schema of the root s, and those below it.
func (s *Schema) checkNode(n *Schema, at string, root bool) error {
	if n == nil {
		return fmt.Errorf("%s: is null", at)
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(at+": "+format, args...)) }
	if n.Definitions != nil && !root {
		fault("definitions stand at the root only")
	}
	if n.Ref != "" {
		if _, ok := s.resolve(n); !ok {
			fault("$ref %q leads nowhere: write #/definitions/NAME", n.Ref)
		}
	}
	for _, t := range n.Type {
		if !slices.Contains([]string{typeNull, typeBoolean, typeObject, typeArray, typeNumber, typeInteger, typeString}, t) {
			fault("%q is no JSON type", t)
		}
	}
	for _, v := range n.Enum {
		switch v.(type) {
		case nil, string, float64, bool:
		default:
			fault("enum holds an array or an object")
		}
	}
	for _, name := range n.Required {
		if n.Properties[name] == nil {
			fault("requires %q, which is no property", name)
		}
	}
	return errors.Join(append(faults, s.checkBelow(n, at)...)...)
}

// checkBelow checks the schemas that a schema holds.
func (s *Schema) checkBelow(n *Schema, at string) (faults []error) {
	for _, name := range slices.Sorted(maps.Keys(n.Properties)) {
		faults = append(faults, s.checkNode(n.Properties[name], at+"."+name, false))
	}
	for _, alternative := range n.AnyOf {
		faults = append(faults, s.checkNode(alternative, at+".anyOf", false))
	}
	if n.Items != nil {
		faults = append(faults, s.checkNode(n.Items, at+"[]", false))
	}
	if n.AdditionalProperties != nil {
		faults = append(faults, s.checkNode(n.AdditionalProperties, at+"{}", false))
	}
	return faults
}

// definitionPrefix begins a reference.
const definitionPrefix = "#/definitions/"

// resolve follows the references of a schema below the root s. It returns false
// where they lead nowhere, or round in a circle.
func (s *Schema) resolve(n *Schema) (*Schema, bool) {
	for range len(s.Definitions) + 2 {
		switch name, ok := strings.CutPrefix(n.Ref, definitionPrefix); {
		case n.Ref == "":
			return n, true
		case n.Ref == "#":
			n = s
		case ok && s.Definitions[name] != nil:
			n = s.Definitions[name]
		default:
			return nil, false
		}
	}
	return nil, false
}

// nullable returns the schema that also allows null.
func (s *Schema) nullable() *Schema {
	if s.Ref != "" {
		return &Schema{AnyOf: []*Schema{s, {Type: Types{typeNull}}}}
	}
	if len(s.Type) == 0 || slices.Contains(s.Type, typeNull) {
		return s
	}
	n := *s
	n.Type = append(slices.Clone(s.Type), typeNull)
	if s.Enum != nil {
		n.Enum = append(slices.Clone(s.Enum), nil)
	}
	return &n
}

// document returns the schema as a JSON Schema document of its own.
func (s *Schema) document(id string) ([]byte, error) {
	return encode(struct {
		Dialect string `json:"$schema"`
		ID      string `json:"$id,omitempty"`
		*Schema
	}{"http://json-schema.org/draft-07/schema#", id, s})
}

// encode writes JSON for people and for diffs: indented, with a line end.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
