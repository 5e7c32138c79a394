package cloudevents

import (
	"fmt"
	"mime"
	"strings"
	"time"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// ToEnvelope returns the envelope that says what the event says, and the header
// that it is published with: its projection and the event's trace context.
//
// An event of the platform may have left out what CloudEvents does not demand.
// These rules fill it in, and the report says so:
//   - no time: received, which is when the event came. Take the time at which a
//     stream stored it where there is one, so that a repeat gives the same bytes.
//   - no correlationid: the event's id; the event begins a workflow.
//   - no datacontenttype: application/json, as the JSON format has it.
//
// The actor is the attribute actor; where it is absent, authtype and authid
// together, if they make one; else the two stay what they are, unknown fields.
// Unknown extensions become unknown fields and are kept by whoever forwards the
// envelope. null and absent are the same.
//
// It fails, wrapping [envelope.ErrMalformed], where [envelope.Decode] refuses the
// result, with all reasons and the names of the envelope: an id that is no UUID, a
// type, source or schema that is not of the platform, no subject, data that is no
// JSON object.
func ToEnvelope(event Event, received time.Time) (*envelope.Envelope, envelope.Header, Report, error) {
	t := toEnvelope{event: event, json: []byte{'{'}}
	for _, a := range event.attributes {
		t.attribute(a)
	}
	t.assume(received)
	if event.data != nil {
		t.set(memberData, event.data)
	}
	e, err := envelope.Decode(append(t.json, '}'))
	if err != nil {
		return nil, nil, nil, fmt.Errorf("cloudevents: to envelope: %w", err)
	}
	parent, state := t.trace()
	h := envelope.Message{Envelope: e, Traceparent: parent}.Header()
	if state != "" {
		h[attrTracestate] = []string{state}
	}
	return e, h, t.report, nil
}

// toEnvelope is a translation under way: the members of the envelope as they are
// written. envelope.Decode judges the whole, so that there is one place that knows
// the rules.
type toEnvelope struct {
	event  Event
	json   []byte
	report Report
}

// set writes a member of the envelope.
func (t *toEnvelope) set(field string, raw []byte) { t.json = appendMember(t.json, field, raw) }

// attribute translates one attribute.
func (t *toEnvelope) attribute(a attribute) {
	switch a.name {
	case attrTraceparent, attrTracestate:
	case attrTime:
		t.time(a)
	case attrContentType:
		t.contentType(a)
	case attrAuthType, attrAuthID:
		t.auth(a)
	default:
		t.set(fieldOf(a.name), a.json)
	}
}

// time writes a time as the envelope has it.
func (t *toEnvelope) time(a attribute) {
	moment, err := time.Parse(time.RFC3339, a.text)
	if err != nil {
		t.set(a.name, a.json) // no event has such a time; the envelope says why not
		return
	}
	text := wireTime(moment)
	if text != a.text {
		t.report.add(a.name, Changed, "the envelope has UTC and microseconds")
	}
	t.set(a.name, appendQuoted(nil, text))
}

// wireTime is how an envelope writes a time.
func wireTime(t time.Time) string { return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano) }

// contentType writes a media type as the envelope has it: lower case, and without a
// charset, which JSON has but one of.
func (t *toEnvelope) contentType(a attribute) {
	text := a.text
	media, parameters, err := mime.ParseMediaType(text)
	if err == nil && (len(parameters) == 0 || len(parameters) == 1 && strings.EqualFold(parameters["charset"], "utf-8")) {
		text = media
	}
	if text != a.text {
		t.report.add(a.name, Changed, "the envelope has lower case and no parameters")
	}
	t.set(a.name, appendQuoted(nil, text))
}

// auth translates authtype or authid. What repeats the actor is left out, what
// contradicts it is dropped, and what makes an actor makes it once.
func (t *toEnvelope) auth(a attribute) {
	if actor, ok := t.event.find(attrActor); ok {
		same := string(envelope.Actor(actor.text).Kind())
		if a.name == attrAuthID {
			same = envelope.Actor(actor.text).ID()
		}
		if a.kind != strictjson.KindString || a.text != same {
			t.report.add(a.name, Dropped, "actor says something else, and wins")
		}
		return
	}
	actor := actorOf(named(t.event.attributes, attrAuthType), named(t.event.attributes, attrAuthID))
	switch {
	case actor == "":
		t.set(a.name, a.json)
	case a.name == attrAuthType:
		t.set(attrActor, appendQuoted(nil, string(actor)))
	}
}

// assume fills in what the event may lack.
func (t *toEnvelope) assume(received time.Time) {
	if _, ok := t.event.find(attrTime); !ok {
		t.report.add(attrTime, Assumed, "the time of receipt")
		t.set(attrTime, appendQuoted(nil, wireTime(received)))
	}
	if _, ok := t.event.find(attrContentType); !ok {
		t.report.add(attrContentType, Assumed, envelope.ContentTypeJSON)
		t.set(attrContentType, appendQuoted(nil, envelope.ContentTypeJSON))
	}
	id, _ := t.event.find(attrID)
	if _, ok := t.event.find(attrCorrelation); !ok && id.json != nil {
		t.report.add(attrCorrelation, Assumed, "the event's id")
		t.set(fieldCorrelation, id.json)
	}
}

// trace returns the trace context, and reports what is none.
func (t *toEnvelope) trace() (parent, state string) {
	parent, _ = t.event.Attribute(attrTraceparent)
	state, _ = t.event.Attribute(attrTracestate)
	parentFault, stateFault := traceFaults(parent, state)
	if parentFault != "" {
		t.report.add(attrTraceparent, Dropped, parentFault)
		parent = ""
	}
	if stateFault != "" {
		t.report.add(attrTracestate, Dropped, stateFault)
		state = ""
	}
	return parent, state
}
