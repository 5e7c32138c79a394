package contract

import (
	"fmt"
	"slices"
	"strings"
)

// tagType, tagFormat and tagEnum are the keys of the struct tag "contract".
const (
	tagType   = "type"
	tagFormat = "format"
	tagEnum   = "enum"
)

// settings reads the tag "contract" of a field: key=value pairs with commas
// between them, the values of an enum separated by bars.
func (g *generator) settings(tag, path string) map[string]string {
	all := map[string]string{}
	if tag == "" {
		return all
	}
	for pair := range strings.SplitSeq(tag, ",") {
		key, value, _ := strings.Cut(pair, "=")
		if !slices.Contains([]string{tagType, tagFormat, tagEnum}, key) || value == "" {
			g.fault(path, fmt.Sprintf("the tag contract:%q: %q is none of type=, format=, enum=a|b", tag, pair))
			continue
		}
		all[key] = value
	}
	return all
}

// tagged returns the schema of a field whose tag says what type of JSON it is; the
// Go type is not looked at then.
func (g *generator) tagged(named, tag, path string) *Schema {
	switch named {
	case "any":
		return &Schema{}
	case typeString, typeNumber, typeInteger, typeBoolean, typeObject, typeArray:
		return &Schema{Type: Types{named}}
	}
	g.fault(path, fmt.Sprintf("the tag contract:%q: type is any, string, number, integer, boolean, object or array", tag))
	return &Schema{}
}

// narrow applies format and enum of a tag to the text that a field is, or that the
// elements of its list are.
func (g *generator) narrow(s *Schema, set map[string]string, tag, path string) *Schema {
	if set[tagFormat] == "" && set[tagEnum] == "" {
		return s
	}
	n := *s
	switch {
	case slices.Contains(s.Type, typeArray) && s.Items != nil:
		n.Items = g.narrow(s.Items, set, tag, path)
	case !slices.Contains(s.Type, typeString) || s.ContentEncoding != "":
		g.fault(path, fmt.Sprintf("the tag contract:%q: format and enum are for text", tag))
	default:
		if set[tagFormat] != "" {
			n.Format = set[tagFormat]
		}
		if set[tagEnum] != "" {
			n.Enum = anyOf(strings.Split(set[tagEnum], "|"))
			if slices.Contains(s.Type, typeNull) {
				n.Enum = append(n.Enum, nil)
			}
		}
	}
	return &n
}
