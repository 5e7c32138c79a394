package cloudevents

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// Decode reads one event in either mode, by the rules in the package
// documentation. Headers of others are ignored; the nil Header will do for a
// structured event. The event aliases body, which must not be changed afterwards.
//
// Every error wraps [ErrMalformed], and [ErrTooLarge] too where a limit is
// exceeded; otherwise all faults are reported at once.
func Decode(h envelope.Header, body []byte) (Event, error) {
	e, err := decode(h, body)
	if err == nil {
		err = e.check()
	}
	if err != nil {
		return Event{}, malformed(err)
	}
	return e, nil
}

// decode finds out the mode.
func decode(h envelope.Header, body []byte) (Event, error) {
	if len(body) > MaxSize {
		return Event{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(body), MaxSize)
	}
	attributes, contentType, err := readHeader(h)
	if err != nil {
		return Event{}, err
	}
	media, _, _ := strings.Cut(contentType, ";")
	switch media = strings.ToLower(strings.TrimSpace(media)); {
	case media == ContentType:
		e, err := decodeStructured(body)
		if err == nil {
			err = e.contradictions(attributes)
		}
		return e, err
	case strings.HasPrefix(media, "application/cloudevents"):
		return Event{}, &AttributeError{headerContentType, "is that of a batch or of another format: single events in JSON are read"}
	case len(attributes) == 0:
		return decodeStructured(body)
	}
	if contentType != "" {
		attributes = append(attributes, textAttribute(attrContentType, contentType))
	}
	return decodeBinary(attributes, body)
}

// reasonTwice is said of what comes twice.
const reasonTwice = "comes more than once: readers would disagree which one counts"

// readHeader returns the attributes in the headers and the content type.
func readHeader(h envelope.Header) (attributes []attribute, contentType string, err error) {
	var faults []error
	seen := map[string]bool{}
	size := 0
	for key, values := range h {
		lower := strings.ToLower(key)
		name, isAttribute := strings.CutPrefix(lower, headerPrefix)
		if !isAttribute && lower != headerContentType || len(values) == 0 {
			continue
		}
		if !isAttribute {
			name = headerContentType // no attribute has a hyphen
		}
		if seen[name] || len(values) > 1 {
			faults = append(faults, &AttributeError{name, reasonTwice})
			continue
		}
		seen[name] = true
		size += len(key) + len(values[0])
		text, reason := percentDecode(values[0])
		switch {
		case reason != "":
			faults = append(faults, &AttributeError{name, reason})
		case isAttribute:
			attributes = append(attributes, textAttribute(name, text))
		default:
			contentType = values[0]
		}
	}
	if size > maxRead {
		return nil, "", fmt.Errorf("%w: headers of %d bytes, at most %d", ErrTooLarge, size, maxRead)
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return attributes, contentType, errors.Join(faults...)
}

// decodeBinary makes the event of a binary message.
func decodeBinary(attributes []attribute, body []byte) (Event, error) {
	slices.SortFunc(attributes, func(a, b attribute) int {
		if d := rank(a.name) - rank(b.name); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	for i := 1; i < len(attributes); i++ {
		if attributes[i].name == attributes[i-1].name { // ce-datacontenttype beside content-type
			return Event{}, &AttributeError{attributes[i].name, reasonTwice}
		}
	}
	e := Event{attributes: attributes}
	if contentType, ok := e.Attribute(attrContentType); len(body) == 0 || ok && !isJSON(contentType) {
		return e, nil // whose check tells of the content type
	}
	if _, err := strictjson.Check(body, dataDepth); err != nil {
		return Event{}, &AttributeError{memberData, "is not acceptable JSON: " + err.Error()}
	}
	e.data = bytes.Trim(body, " \t\r\n") // what JSON allows around a value is none of it
	return e, nil
}

// dataDepth is how many containers data stands in where it is part of an event.
const dataDepth = 1

// rank sorts the attributes of the specification before the extensions.
func rank(name string) int {
	if i := slices.Index(standard, name); i >= 0 {
		return i
	}
	return len(standard)
}

// memberNames is constant: the names that the specification gives a meaning, so
// that none of them in another case passes for an extension.
var memberNames = strictjson.NewNames(append(slices.Clone(standard), memberData, memberBase64)...)

// decodeStructured makes the event of a JSON object.
func decodeStructured(body []byte) (Event, error) {
	var e Event
	var faults []error
	object := strictjson.NewObject(body, memberNames)
	for object.Next() {
		name := string(strictjson.AppendUnescaped(nil, object.Name()))
		switch {
		case name == memberBase64:
			faults = append(faults, &AttributeError{name, "is binary data: put it elsewhere and reference it; " +
				"to the Go SDK, hand JSON as a json.RawMessage and not as bytes"})
		case name == memberData:
			e.data = object.Raw()
		case object.Kind() != strictjson.KindNull: // null means absent in this format
			e.attributes = append(e.attributes, jsonAttribute(name, object.Kind(), object.Raw()))
		}
	}
	if err := object.Err(); err != nil {
		return Event{}, err
	}
	return e, errors.Join(faults...)
}

// contradictions returns where headers beside a structured event differ from it:
// an SDK that looks at the headers first would read another event.
func (e Event) contradictions(headers []attribute) error {
	var faults []error
	for _, a := range headers {
		if text, ok := e.Attribute(a.name); !ok || text != a.text {
			faults = append(faults, &AttributeError{a.name, "is another one in the header than in the structured event"})
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(faults...)
}
