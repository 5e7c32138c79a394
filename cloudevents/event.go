package cloudevents

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// Limits and names.
const (
	// MaxSize is the largest body in bytes that is read or written: that of an
	// envelope and 8 KiB for what an event says twice, so that size keeps no
	// envelope from becoming an event.
	MaxSize = envelope.MaxSize + 8<<10
	// ContentType is the content type of a structured event.
	ContentType = "application/cloudevents+json"
	// SpecVersion is the only version of CloudEvents that is read or written.
	SpecVersion = "1.0"
)

// The attributes that the specification defines.
const (
	attrSpecVersion = "specversion"
	attrID          = "id"
	attrType        = "type"
	attrSource      = "source"
	attrSubject     = "subject"
	attrTime        = "time"
	attrContentType = "datacontenttype"
	attrSchema      = "dataschema"
)

// standard is constant: those attributes, in the order in which binary events list
// them.
var standard = []string{
	attrSpecVersion, attrID, attrType, attrSource, attrSubject, attrTime, attrContentType, attrSchema,
}

// Members of the JSON format that are no attributes.
const (
	memberData   = "data"
	memberBase64 = "data_base64"
)

// Event is a CloudEvent with JSON data or none. It is made by [FromEnvelope] and
// [Decode], which make only valid ones; the zero value encodes to nothing that
// anybody accepts. An Event is immutable and safe for concurrent use.
type Event struct {
	attributes []attribute
	data       json.RawMessage
}

// attribute is a name and its value: as the text that headers hold, and as the
// JSON that bodies hold.
type attribute struct {
	name string
	text string
	json []byte
	kind strictjson.Kind
}

// textAttribute makes the attribute of a text.
func textAttribute(name, text string) attribute {
	return attribute{name, text, appendQuoted(nil, text), strictjson.KindString}
}

// jsonAttribute makes the attribute of a JSON scalar.
func jsonAttribute(name string, kind strictjson.Kind, raw []byte) attribute {
	text := string(raw)
	if kind == strictjson.KindString {
		text = string(strictjson.AppendUnescaped(nil, raw[1:len(raw)-1]))
	}
	return attribute{name, text, raw, kind}
}

// Attribute returns the value of an attribute as text, and whether the event has
// it. A boolean is "true" or "false", an integer its decimal digits. The names are
// those of CloudEvents: "tenantid".
func (e Event) Attribute(name string) (text string, ok bool) {
	a, ok := e.find(name)
	return a.text, ok
}

// find returns an attribute and whether it is there.
func (e Event) find(name string) (attribute, bool) {
	i := slices.IndexFunc(e.attributes, func(a attribute) bool { return a.name == name })
	if i < 0 {
		return attribute{}, false
	}
	return e.attributes[i], true
}

// Attributes iterates over names and values, as [Event.Attribute] returns them, in
// their order.
func (e Event) Attributes() iter.Seq2[string, string] {
	return func(yield func(name, text string) bool) {
		for _, a := range e.attributes {
			if !yield(a.name, a.text) {
				return
			}
		}
	}
}

// Data returns the JSON value of the event, nil for an event without data. It must
// not be changed.
func (e Event) Data() json.RawMessage { return e.data }

// check returns what makes e no event, all faults joined.
func (e Event) check() error {
	if len(e.attributes) >= strictjson.MaxMembers { // data is a member, too
		return fmt.Errorf("%w: more than 127 attributes", ErrTooLarge)
	}
	var faults []error
	for _, name := range standard[:4] {
		if _, ok := e.find(name); !ok {
			faults = append(faults, &AttributeError{name, "is required"})
		}
	}
	for _, a := range e.attributes {
		if reason := a.fault(); reason != "" {
			faults = append(faults, &AttributeError{a.name, reason})
		}
	}
	return errors.Join(faults...)
}

// fault returns why an attribute is refused, or "".
func (a attribute) fault() string {
	if reason := checkName(a.name); reason != "" {
		return reason
	}
	if reason := checkScalar(a.kind, a.text); reason != "" {
		return reason
	}
	if !slices.Contains(standard, a.name) {
		return ""
	}
	switch {
	case a.kind != strictjson.KindString:
		return "must be a string, is " + a.kind.String()
	case a.text == "":
		return "is empty; leave it out when it has no value"
	case a.name == attrSpecVersion && a.text != SpecVersion:
		return "must be " + SpecVersion
	case a.name == attrContentType && !isJSON(a.text):
		return "is not JSON: only events with JSON data are read"
	case a.name == attrTime:
		if _, err := time.Parse(time.RFC3339, a.text); err != nil {
			return "must be RFC 3339"
		}
	}
	return ""
}
