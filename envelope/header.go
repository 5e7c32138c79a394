package envelope

import (
	"strconv"
	"strings"
)

// Names of the headers that the library writes (requirement X1). They are exact:
// NATS compares header names byte by byte.
const (
	// HeaderMsgID is the deduplication id: the envelope's id, or
	// "<letter id>/d<n>" on a dead letter and "<letter id>/r<n>" on a replay.
	HeaderMsgID = "Nats-Msg-Id"
	// HeaderCorrelationID is the envelope's correlation_id.
	HeaderCorrelationID = "X-Correlation-Id"
	// HeaderCausationID is the envelope's causation_id, absent with it.
	HeaderCausationID = "X-Causation-Id"
	// HeaderEventVersion is the version of the data's schema.
	HeaderEventVersion = "X-Event-Version"
	// HeaderTenantID is the envelope's tenant_id, absent in platform scope.
	HeaderTenantID = "tenant-id"
	// HeaderTraceparent is the W3C trace context the message was made in.
	HeaderTraceparent = "traceparent"
	// HeaderTraceID is the trace id out of the traceparent, for tools that
	// search by it (requirement X3).
	HeaderTraceID = "trace-id"
	// HeaderType is the envelope's type.
	HeaderType = "Dv-Type"
	// HeaderSource is the envelope's source.
	HeaderSource = "Dv-Source"
	// HeaderSite is the site that published the message (requirement W1).
	HeaderSite = "Dv-Site"
	// HeaderLetterID is the id of the dead letter, on letters and replays.
	HeaderLetterID = "Dv-Letter-Id"
	// HeaderOriginalSubject, HeaderOriginalStream and HeaderOriginalSequence
	// say where a dead letter's original is stored.
	HeaderOriginalSubject  = "Dv-Original-Subject"
	HeaderOriginalStream   = "Dv-Original-Stream"
	HeaderOriginalSequence = "Dv-Original-Sequence"
	// HeaderLegacyCorrelationID is the older name of X-Correlation-Id. It is
	// accepted when reading, in any case, and written as an option only.
	HeaderLegacyCorrelationID = "correlation-id"
)

// Header holds header names and their values, and converts to and from
// nats.Header and http.Header. The nil Header is an empty one to read from. A
// Header is not safe for concurrent writing.
type Header map[string][]string

// Get returns the first value of the exactly named header, or "".
func (h Header) Get(name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// projected is one header that repeats what the envelope says.
type projected struct {
	name string
	// alias is an older name that is read too.
	alias string
	// field is the one that it repeats; of dataschema, the version.
	field int
	// origin takes the header's value at the edge, nil where an origin has no
	// place for it.
	origin func(*Origin, string)
}

// projection is constant: the one list of headers that repeat the envelope, by
// ascending name, which is the order in which they are written. Writing, checking
// and reading at the edge all walk it, so that none of the three can know a header
// that the others do not.
var projection = [...]projected{
	{name: HeaderSource, field: fieldSource},
	{name: HeaderType, field: fieldType},
	{name: HeaderMsgID, field: fieldID},
	{name: HeaderCausationID, field: fieldCausation, origin: func(o *Origin, v string) { o.CausationID = v }},
	{name: HeaderCorrelationID, field: fieldCorrelation, alias: HeaderLegacyCorrelationID,
		origin: func(o *Origin, v string) { o.CorrelationID = v }},
	{name: HeaderEventVersion, field: fieldSchema},
	{name: HeaderTenantID, field: fieldTenant, origin: func(o *Origin, v string) { o.TenantID = v }},
}

// value returns what the envelope says; "" means that the header is absent.
func (p *projected) value(e *Envelope) string {
	switch p.field {
	case fieldSource:
		return e.Source.String()
	case fieldSchema:
		return strconv.Itoa(e.SchemaVersion())
	}
	return *e.text(p.field)
}

// travelling is constant: own headers that the envelope knows nothing about.
var travelling = [...]string{
	HeaderTraceparent, HeaderTraceID, HeaderSite, HeaderLetterID,
	HeaderOriginalSubject, HeaderOriginalStream, HeaderOriginalSequence,
}

// Header returns the headers that m is published with: the projection of its
// envelope and its trace. The map is the caller's own; Dv-Site is for whoever
// knows the site.
func (m Message) Header() Header {
	const most = len(projection) + 2
	h := make(Header, most+1)         // room for Dv-Site
	values := make([]string, 0, most) // one allocation for all values
	set := func(name, value string) {
		if value == "" {
			return
		}
		values = append(values, value)
		// The capacity is cut, so that appending to one header cannot reach
		// into the next.
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	for i := range projection {
		set(projection[i].name, projection[i].value(m.Envelope))
	}
	if id, ok := TraceID(m.Traceparent); ok {
		set(HeaderTraceparent, m.Traceparent)
		set(HeaderTraceID, id)
	}
	return h
}

// OriginFromHeader reads an [Origin] at the edge, where a request enters the
// platform: names in any case, the older correlation-id too (requirement X1).
// Values that could not be sent on are ignored, and so is a header that comes
// twice with different values, since nobody can say which one was meant.
// PlatformScope and Actor are left for the edge to decide.
//
// A header is a claim. Take TenantID only from a sender that was authenticated
// for it.
func OriginFromHeader(h Header) Origin {
	var o Origin
	for i := range projection {
		p := &projection[i]
		if p.origin == nil {
			continue
		}
		value := h.agreed(p.name)
		if value == "" && p.alias != "" {
			value = h.agreed(p.alias)
		}
		if checkID(value) == "" {
			p.origin(&o, value)
		}
	}
	o.Traceparent = validTraceparent(h.agreed(HeaderTraceparent))
	return o
}

// agreed returns the value of a header in any case, or "" when its spellings or
// values disagree.
func (h Header) agreed(name string) string {
	found := ""
	for key, values := range h {
		if !strings.EqualFold(key, name) {
			continue
		}
		for _, v := range values {
			if found != "" && v != found {
				return ""
			}
			found = v
		}
	}
	return found
}
