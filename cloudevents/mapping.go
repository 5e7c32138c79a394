package cloudevents

import (
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/strictjson"
)

// Attributes with rules of their own.
const (
	attrActor       = "actor"
	attrAuthType    = "authtype"
	attrAuthID      = "authid"
	attrCorrelation = "correlationid"
	attrTraceparent = "traceparent"
	attrTracestate  = "tracestate"
)

// fieldCorrelation is the native name that a rule needs.
const fieldCorrelation = "correlation_id"

// pair is a field of the envelope and its attribute.
type pair struct{ field, attribute string }

// mapping is constant: the one list that both directions walk. What is not in it
// is an unknown field or an extension, whose name stays.
var mapping = []pair{
	{"specversion", attrSpecVersion}, {"id", attrID}, {"type", attrType}, {"source", attrSource},
	{"subject", attrSubject}, {"time", attrTime}, {"datacontenttype", attrContentType}, {"dataschema", attrSchema},
	{"tenant_id", "tenantid"}, {"project_id", "projectid"}, {"environment_id", "environmentid"},
	{"datacenter_id", "datacenterid"}, {"actor", attrActor},
	{fieldCorrelation, attrCorrelation}, {"causation_id", "causationid"}, {"visibility", "visibility"},
}

// fieldNames is constant: the fields of the envelope, data last.
var fieldNames = func() *strictjson.Names {
	names := make([]string, 0, len(mapping)+1)
	for _, p := range mapping {
		names = append(names, p.field)
	}
	return strictjson.NewNames(append(names, memberData)...)
}()

// fieldOf returns the field of an attribute, or the name itself.
func fieldOf(name string) string {
	for _, p := range mapping {
		if p.attribute == name {
			return p.field
		}
	}
	return name
}

// taken reports whether an attribute has a meaning of its own that an unknown field
// of the same name would forge.
func taken(name string) bool {
	return fieldOf(name) != name || name == attrTraceparent || name == attrTracestate
}

// actorOf returns the actor that authtype and authid name together, or "".
func actorOf(authType, authID attribute) envelope.Actor {
	if authType.kind != strictjson.KindString || authID.kind != strictjson.KindString {
		return ""
	}
	actor, err := envelope.NewActor(envelope.ActorKind(authType.text), authID.text)
	if err != nil {
		return ""
	}
	return actor
}

// Limits of the trace context in bytes. A longer tracestate may be cut, says the
// W3C; half a list is worse than none.
const (
	maxTraceparent = 256
	maxTracestate  = 512
)

// traceFaults returns why the two parts of a trace context are not carried over, ""
// for each that is, or is not there.
func traceFaults(parent, state string) (parentFault, stateFault string) {
	_, ok := envelope.TraceID(parent)
	ok = ok && len(parent) <= maxTraceparent && visible(parent)
	if parent != "" && !ok {
		parentFault = "is no trace context of the W3C"
	}
	switch {
	case state == "":
	case !ok:
		stateFault = "has no traceparent that it belongs to"
	case len(state) > maxTracestate || !visible(state):
		stateFault = "is longer than 512 bytes, or not visible ASCII"
	}
	return parentFault, stateFault
}

// visible reports whether a text survives every reader of headers: visible ASCII,
// and spaces inside it.
func visible(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return text != "" && text[0] != ' ' && text[len(text)-1] != ' '
}
