package cloudevents

import (
	"fmt"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// FromEnvelope returns the event that says what e says. Of the header it takes
// traceparent and tracestate, each in its first value; what else stands there
// repeats the envelope or belongs to one delivery. The nil Header will do.
//
// The report names what has no counterpart: unknown fields whose name, type or
// value CloudEvents does not know, or whose name has a meaning of its own there;
// a trace context that is none; a later minor version of the envelope.
//
// It fails if e is not valid, with the error of [envelope.Envelope.Encode]; if its
// subject holds what CloudEvents forbids in texts; and if it has so many fields
// that the event would have more than 127 attributes.
func FromEnvelope(e *envelope.Envelope, h envelope.Header) (Event, Report, error) {
	encoded, err := e.Encode()
	if err != nil {
		return Event{}, nil, fmt.Errorf("cloudevents: from envelope: %w", err)
	}
	// What was encoded is renamed: the values keep their bytes, and there is one
	// place that knows how they are written.
	t := fromEnvelope{actor: e.Actor}
	var unknown []attribute
	object := strictjson.NewObject(encoded, fieldNames)
	for object.Next() {
		if i := object.Known(); i == len(mapping) {
			t.event.data = object.Raw()
		} else if i >= 0 {
			t.known(mapping[i].attribute, object.Raw())
		} else {
			name := string(strictjson.AppendUnescaped(nil, object.Name()))
			unknown = append(unknown, jsonAttribute(name, object.Kind(), object.Raw()))
		}
	}
	t.trace(h)
	t.unknown(unknown)
	if err = object.Err(); err == nil {
		err = t.event.check()
	}
	if err != nil {
		return Event{}, nil, fmt.Errorf("cloudevents: from envelope: %w", err)
	}
	return t.event, t.report, nil
}

// fromEnvelope is a translation under way.
type fromEnvelope struct {
	actor  envelope.Actor
	event  Event
	report Report
}

// set adds an attribute.
func (t *fromEnvelope) set(a attribute) { t.event.attributes = append(t.event.attributes, a) }

// known translates a field of the envelope. All of them are texts.
func (t *fromEnvelope) known(name string, raw []byte) {
	a := jsonAttribute(name, strictjson.KindString, raw)
	if name == attrSpecVersion && a.text != SpecVersion {
		t.report.add(name, Changed, "there is no other version of CloudEvents than "+SpecVersion)
		a = textAttribute(name, SpecVersion)
	}
	t.set(a)
	if name == attrActor {
		t.set(textAttribute(attrAuthType, string(t.actor.Kind())))
		t.set(textAttribute(attrAuthID, t.actor.ID()))
	}
}

// trace translates the trace context.
func (t *fromEnvelope) trace(h envelope.Header) {
	parent, state := h.Get(attrTraceparent), h.Get(attrTracestate)
	parentFault, stateFault := traceFaults(parent, state)
	t.part(attrTraceparent, parent, parentFault)
	t.part(attrTracestate, state, stateFault)
}

// part translates one header of the trace context, or reports why not.
func (t *fromEnvelope) part(name, text, fault string) {
	switch {
	case fault != "":
		t.report.add(name, Dropped, fault)
	case text != "":
		t.set(textAttribute(name, text))
	}
}

// unknown translates the fields that the envelope does not know.
func (t *fromEnvelope) unknown(fields []attribute) {
	forged := t.actor != "" || actorOf(named(fields, attrAuthType), named(fields, attrAuthID)) != ""
	for _, a := range fields {
		reason := a.fault()
		switch {
		case reason != "":
		case taken(a.name):
			reason = "is the name of an attribute with a meaning of its own"
		case forged && (a.name == attrAuthType || a.name == attrAuthID):
			reason = "would be read as the actor"
		}
		if reason != "" {
			t.report.add(a.name, Dropped, reason)
			continue
		}
		t.set(a)
	}
}

// named returns the attribute of that name, or the zero one.
func named(all []attribute, name string) attribute {
	a, _ := Event{attributes: all}.find(name)
	return a
}
