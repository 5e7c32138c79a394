package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// comparison compares the schemas of one version of a message.
type comparison struct {
	old, next *Schema // the roots
	kind      Kind
	seen      map[[2]*Schema]bool // pairs that are being or were compared
	changes   []Change
}

func (c *comparison) add(path string, v Verdict, r Rule, format string, args ...any) {
	c.changes = append(c.changes, Change{Path: path, Verdict: v, Rule: r, Text: fmt.Sprintf(format, args...)})
}

// widened is the verdict where more is allowed than before: of an event the older
// readers meet it, of a command older readers only as long as they run.
func (c *comparison) widened() Verdict {
	if c.kind == Event {
		return Breaking
	}
	return Warning
}

// narrowed is the verdict where less is allowed than before: senders of a command
// do not know, while an event's sender is the one that changed.
func (c *comparison) narrowed() Verdict {
	if c.kind == Command {
		return Breaking
	}
	return Warning
}

// Whom a change concerns.
const (
	whomReaders = "programs that run read it as before"
	whomSenders = "programs that run send it as before"
	whomStored  = "messages that are stored are as before"
)

// node compares two schemas.
func (c *comparison) node(old, next *Schema, path string) {
	old, fits := c.old.resolve(old)
	next, fit := c.next.resolve(next)
	if !fits || !fit || c.seen[[2]*Schema{old, next}] {
		return // what leads nowhere was refused when it was read
	}
	c.seen[[2]*Schema{old, next}] = true
	old, next = plain(c.old, old), plain(c.next, next)
	if !sameSet(old.Type, next.Type) || len(old.AnyOf) != len(next.AnyOf) ||
		(old.AdditionalProperties == nil) != (next.AdditionalProperties == nil) || (old.Items == nil) != (next.Items == nil) {
		c.add(path, Breaking, RuleType, "from %s to %s; %s, and %s", describe(old), describe(next), whomReaders, whomStored)
		return
	}
	if old.Format != next.Format || old.Pattern != next.Pattern || old.ContentEncoding != next.ContentEncoding {
		c.add(path, Breaking, RuleFormat, "from %s to %s; %s, and %s", describe(old), describe(next), whomReaders, whomStored)
	}
	if old.Title != next.Title || old.Description != next.Description {
		c.add(path, Compatible, RuleDescription, "title or description")
	}
	c.enum(old, next, path)
	c.bounds(old, next, path)
	c.properties(old, next, path)
	if old.Items != nil {
		c.node(old.Items, next.Items, path+"[]")
	}
	if old.AdditionalProperties != nil {
		c.node(old.AdditionalProperties, next.AdditionalProperties, path+"{}")
	}
	for i := range old.AnyOf {
		c.node(old.AnyOf[i], next.AnyOf[i], path)
	}
}

// plain returns what a schema allows without an anyOf, if that is only there to
// allow null beside a reference: a reference is no difference.
func plain(root, s *Schema) *Schema {
	if len(s.AnyOf) != 2 || !slices.Equal(s.AnyOf[1].Type, Types{typeNull}) {
		return s
	}
	if to, ok := root.resolve(s.AnyOf[0]); ok && s.AnyOf[0].Ref != "" {
		return to.nullable()
	}
	return s
}

// sameSet reports whether two lists have the same members.
func sameSet(a, b []string) bool {
	return slices.Equal(slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b))))
}

// describe names what a schema allows, for a text.
func describe(s *Schema) string {
	text := "any value"
	switch {
	case len(s.AnyOf) > 0:
		text = "one of several"
	case len(s.Type) > 0:
		text = fmt.Sprint([]string(s.Type))
		if len(s.Type) == 1 {
			text = s.Type[0]
		}
	}
	if s.AdditionalProperties != nil {
		text += " of " + describe(s.AdditionalProperties)
	}
	for _, more := range []string{s.Format, s.ContentEncoding, s.Pattern} {
		if more != "" {
			text += " " + more
		}
	}
	return text
}

// properties compares the fields of objects.
func (c *comparison) properties(old, next *Schema, path string) {
	for _, name := range slices.Sorted(maps.Keys(old.Properties)) {
		at := join(path, name)
		was, is := slices.Contains(old.Required, name), slices.Contains(next.Required, name)
		switch now, there := next.Properties[name]; {
		case !there && was:
			c.add(at, Breaking, RuleRequiredRemoved, "a property that was always there was removed; %s", whomReaders)
		case !there:
			c.add(at, Warning, RuleOptionalRemoved, "an optional property was removed; who used it finds nothing")
		default:
			if !was && is {
				c.add(at, Breaking, RuleBecameRequired, "an optional property became required; %s and may lack it", whomStored)
			}
			if was && !is {
				c.add(at, c.widened(), RuleBecameOptional, "a required property became optional; %s and may miss it", whomReaders)
			}
			c.node(old.Properties[name], now, at)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next.Properties)) {
		if old.Properties[name] != nil {
			continue
		}
		if slices.Contains(next.Required, name) {
			c.add(join(path, name), Breaking, RuleRequiredAdded, "a required property was added; %s and lack it: make it optional with omitempty, or omitzero for a struct", whomStored)
		} else {
			c.add(join(path, name), Compatible, RuleOptionalAdded, "an optional property was added; readers ignore what they do not know")
		}
	}
}

// join appends a property to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// enum compares closed sets of values. No set is the set of all.
func (c *comparison) enum(old, next *Schema, path string) {
	was, is := enumSet(old.Enum), enumSet(next.Enum)
	gained, lost := minus(is, was), minus(was, is)
	if old.Enum != nil && (next.Enum == nil || len(gained) > 0) {
		c.add(path, c.widened(), RuleEnumWidened, "values were added: %s; %s", valueList(next.Enum, gained), whomReaders)
	}
	if next.Enum != nil && (old.Enum == nil || len(lost) > 0) {
		c.add(path, c.narrowed(), RuleEnumNarrowed, "values were removed: %s; %s", valueList(old.Enum, lost), whomSenders)
	}
}

// enumSet returns the values as JSON texts.
func enumSet(values []any) []string {
	all := make([]string, len(values))
	for i, v := range values {
		text, _ := json.Marshal(v) // strings, numbers, booleans, null
		all[i] = string(text)
	}
	return all
}

// minus returns the members of a that are not in b.
func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(v string) bool { return slices.Contains(b, v) })
}

func valueList(whole []any, values []string) string {
	if whole == nil {
		return "all"
	}
	return fmt.Sprint(values)
}

// bounds compares the limits of numbers and lengths. Upper limits are compared
// with their sign turned, so that a higher one is a tighter one for all.
func (c *comparison) bounds(old, next *Schema, path string) {
	for _, b := range []struct {
		name      string
		was, is   *float64
		direction float64
	}{
		{"minimum", old.Minimum, next.Minimum, 1}, {"maximum", old.Maximum, next.Maximum, -1},
		{"minLength", old.MinLength, next.MinLength, 1}, {"maxLength", old.MaxLength, next.MaxLength, -1},
		{"minItems", old.MinItems, next.MinItems, 1}, {"maxItems", old.MaxItems, next.MaxItems, -1},
	} {
		switch {
		case b.was == nil && b.is == nil, b.was != nil && b.is != nil && *b.was == *b.is:
		case b.was == nil, b.is != nil && *b.is*b.direction > *b.was*b.direction:
			c.add(path, c.narrowed(), RuleBoundTightened, "%s from %s to %s; %s", b.name, number(b.was), number(b.is), whomSenders)
		default:
			c.add(path, c.widened(), RuleBoundLoosened, "%s from %s to %s; %s", b.name, number(b.was), number(b.is), whomReaders)
		}
	}
}

func number(n *float64) string {
	if n == nil {
		return "none"
	}
	return strconv.FormatFloat(*n, 'f', -1, 64)
}
