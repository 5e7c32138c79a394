package dlq

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// Change is one difference between two JSON values.
type Change struct {
	// Path is where, as a JSON Pointer (RFC 6901): "/disks/0/size".
	Path string `json:"path"`
	// Old and New are the values there; empty where there is none.
	Old json.RawMessage `json:"old,omitempty"`
	New json.RawMessage `json:"new,omitempty"`
}

// member is one member of a JSON object; one without a value was taken out.
type member struct {
	name  string
	value json.RawMessage
}

// object is a JSON object whose members keep their order.
type object struct {
	members []member
	at      map[string]int
}

// parseObject reads an object, of a name that comes twice the last value; ok is
// false for what is no object.
func parseObject(raw json.RawMessage) (o *object, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	o = &object{at: map[string]int{}}
	for dec.More() {
		name, err := dec.Token()
		text, isText := name.(string)
		var value json.RawMessage
		if err != nil || !isText || dec.Decode(&value) != nil {
			return nil, false
		}
		o.set(text, value)
	}
	return o, true
}

// set gives a member its value, behind the others if it is new.
func (o *object) set(name string, value json.RawMessage) {
	i, ok := o.at[name]
	if !ok {
		i = len(o.members)
		o.at[name] = i
		o.members = append(o.members, member{name: name})
	}
	o.members[i].value = value
}

// get returns the value of a member, nil for none.
func (o *object) get(name string) json.RawMessage {
	if i, ok := o.at[name]; ok {
		return o.members[i].value
	}
	return nil
}

// spelled returns the name as this object spells it: Go's decoder takes a name in
// another case for the same.
func (o *object) spelled(name string) string {
	if o.get(name) != nil {
		return name
	}
	for _, m := range o.members {
		if m.value != nil && strings.EqualFold(m.name, name) {
			return m.name
		}
	}
	return name
}

// encode returns the object without what was taken out.
func (o *object) encode() json.RawMessage {
	raw := []byte{'{'}
	for _, m := range o.members {
		if m.value == nil {
			continue
		}
		if len(raw) > 1 {
			raw = append(raw, ',')
		}
		raw = append(append(raw, quote(m.name)...), ':')
		raw = append(raw, m.value...)
	}
	return append(raw, '}')
}

// elements returns the elements of a list; ok is false for what is none.
func elements(raw json.RawMessage) (all []json.RawMessage, ok bool) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	return all, json.Unmarshal(raw, &all) == nil
}

// merge returns raw with the differences between before and after, two encodings
// of what a Go type made of raw. What the type does not know is in neither, and
// stays.
func merge(raw, before, after json.RawMessage) json.RawMessage {
	if sameJSON(before, after) {
		return raw
	}
	if merged, ok := mergeObjects(raw, before, after); ok {
		return merged
	}
	if merged, ok := mergeLists(raw, before, after); ok {
		return merged
	}
	return after
}

func mergeObjects(raw, before, after json.RawMessage) (json.RawMessage, bool) {
	own, ok := parseObject(raw)
	old, ok2 := parseObject(before)
	changed, ok3 := parseObject(after)
	if !ok || !ok2 || !ok3 {
		return nil, false
	}
	for _, m := range old.members {
		name := own.spelled(m.name)
		have, now := own.get(name), changed.get(m.name)
		switch {
		case have != nil && now == nil:
			own.set(name, nil)
		case have != nil:
			own.set(name, merge(have, m.value, now))
		case now != nil && !sameJSON(m.value, now):
			own.set(name, now)
		}
	}
	for _, m := range changed.members {
		if old.get(m.name) == nil {
			own.set(own.spelled(m.name), m.value)
		}
	}
	return own.encode(), true
}

func mergeLists(raw, before, after json.RawMessage) (json.RawMessage, bool) {
	own, ok := elements(raw)
	old, ok2 := elements(before)
	changed, ok3 := elements(after)
	if !ok || !ok2 || !ok3 || len(own) != len(old) || len(old) != len(changed) {
		return nil, false
	}
	for i := range own {
		own[i] = merge(own[i], old[i], changed[i])
	}
	return append(append([]byte{'['}, bytes.Join(rawBytes(own), []byte{','})...), ']'), true
}

func rawBytes(all []json.RawMessage) [][]byte {
	list := make([][]byte, len(all))
	for i, raw := range all {
		list[i] = raw
	}
	return list
}

// quote encodes a name without the escapes that are for web pages.
func quote(name string) []byte {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(name) // a string cannot fail
	return bytes.TrimSpace(text.Bytes())
}

// sameJSON reports whether two values differ at most in white space, the order of
// members and the way that strings are escaped. Numbers are compared as they are
// written: 1.0 is not 1 to every reader.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	return len(changes(a, b)) == 0
}

// changes lists the differences between two values, those of an object in the
// order of the old members, added ones last.
func changes(old, changed json.RawMessage) []Change {
	return diff(nil, "", old, changed)
}

func diff(found []Change, path string, old, changed json.RawMessage) []Change {
	if a, ok := parseObject(old); ok {
		if b, ok := parseObject(changed); ok {
			return diffObjects(found, path, a, b)
		}
	}
	if a, ok := elements(old); ok {
		if b, ok := elements(changed); ok {
			return diffLists(found, path, a, b)
		}
	}
	if sameScalar(old, changed) {
		return found
	}
	return append(found, Change{path, compact(old), compact(changed)})
}

func diffObjects(found []Change, path string, a, b *object) []Change {
	for _, m := range a.members {
		at := path + "/" + escapePointer(m.name)
		if now := b.get(m.name); now != nil {
			found = diff(found, at, m.value, now)
		} else {
			found = append(found, Change{Path: at, Old: compact(m.value)})
		}
	}
	for _, m := range b.members {
		if a.get(m.name) == nil {
			found = append(found, Change{Path: path + "/" + escapePointer(m.name), New: compact(m.value)})
		}
	}
	return found
}

func diffLists(found []Change, path string, a, b []json.RawMessage) []Change {
	for i := range max(len(a), len(b)) {
		at := path + "/" + strconv.Itoa(i)
		switch {
		case i >= len(a):
			found = append(found, Change{Path: at, New: compact(b[i])})
		case i >= len(b):
			found = append(found, Change{Path: at, Old: compact(a[i])})
		default:
			found = diff(found, at, a[i], b[i])
		}
	}
	return found
}

// sameScalar compares values that are neither two objects nor two lists.
func sameScalar(a, b json.RawMessage) bool {
	if bytes.Equal(bytes.TrimSpace(a), bytes.TrimSpace(b)) {
		return true
	}
	var x, y string
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && x == y && !isNull(a) && !isNull(b)
}

// isNull: a null decodes into any string as nothing.
func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

// compact returns the value without white space.
func compact(raw json.RawMessage) json.RawMessage {
	var text bytes.Buffer
	if json.Compact(&text, raw) != nil {
		return raw
	}
	return text.Bytes()
}

// escapePointer escapes a name in a JSON Pointer.
func escapePointer(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
