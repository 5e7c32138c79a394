package rpc

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Headers of a request that no other message has. They are exact: NATS compares
// header names byte by byte.
const (
	// HeaderTimeout is how long the caller waits, in milliseconds from when the
	// request arrives.
	HeaderTimeout = "Dv-Timeout-Ms"
	// HeaderActor is who asks, "<kind>:<id>".
	HeaderActor = "Dv-Actor"
)

// The headers of a request, by their places in requestHeaders.
const (
	inTimeout = iota
	inVersion
	inCorrelation
	inCausation
	inActor
	inTenant
	inSource
	inTrace
	ownHeaders
)

// requestHeaders is constant: the names by their places.
var requestHeaders = [ownHeaders]string{
	inTimeout: HeaderTimeout, inVersion: envelope.HeaderEventVersion,
	inCorrelation: envelope.HeaderCorrelationID, inCausation: envelope.HeaderCausationID,
	inActor: HeaderActor, inTenant: envelope.HeaderTenantID,
	inSource: envelope.HeaderSource, inTrace: envelope.HeaderTraceparent,
}

// meta is what the headers of a request say.
type meta struct {
	timeout time.Duration
	version string
	source  string // the calling service, "" if it did not say
	origin  envelope.Origin
}

// header writes m. Values are one allocation, each with its capacity cut.
func (m *meta) header() nats.Header {
	h := make(nats.Header, ownHeaders)
	values := [ownHeaders]string{
		inTimeout: strconv.FormatInt(m.timeout.Milliseconds(), 10), inVersion: m.version,
		inCorrelation: m.origin.CorrelationID, inCausation: m.origin.CausationID,
		inActor: string(m.origin.Actor), inTenant: m.origin.TenantID,
		inSource: m.source, inTrace: traceparent(m.origin.Traceparent),
	}
	all := values[:]
	for i, name := range requestHeaders {
		if values[i] != "" {
			h[name] = all[i : i+1 : i+1]
		}
	}
	return h
}

// readHeader reads what header writes, and says in words for the caller what keeps
// it from being read. Headers of others are ignored. An own one that comes twice or
// in another case is refused, since readers would disagree which one counts.
func readHeader(h nats.Header, ceiling time.Duration) (m meta, fault string) {
	var values [ownHeaders]string
	for name, all := range h {
		i, exact := place(name)
		switch {
		case i < 0 || len(all) == 0:
			continue
		case !exact:
			return m, "header " + requestHeaders[i] + " is spelled in another case"
		case len(all) > 1:
			return m, "header " + requestHeaders[i] + " comes more than once"
		}
		values[i] = all[0]
	}
	if m.timeout, fault = readTimeout(values[inTimeout], ceiling); fault != "" {
		return m, "header " + HeaderTimeout + " " + fault
	}
	if m.version = values[inVersion]; m.version == "" {
		return m, "header " + envelope.HeaderEventVersion + " is missing: say which version of the operation is meant"
	}
	if m.source = values[inSource]; m.source != "" {
		if _, err := subject.ParseService(m.source); err != nil {
			return m, "header " + envelope.HeaderSource + " is no service"
		}
	}
	for _, i := range [...]int{inCorrelation, inActor} {
		if values[i] == "" {
			return m, "header " + requestHeaders[i] + " is missing"
		}
	}
	m.origin = envelope.Origin{
		CorrelationID: values[inCorrelation], CausationID: values[inCausation],
		Actor: envelope.Actor(values[inActor]), TenantID: values[inTenant],
		PlatformScope: values[inTenant] == "", Traceparent: traceparent(values[inTrace]),
	}
	if err := m.origin.Validate(); err != nil {
		return m, originFault(err)
	}
	return m, ""
}

// originFault says in the caller's words what [envelope.Origin.Validate] found.
func originFault(err error) string {
	return strings.NewReplacer(
		"envelope: Origin.CorrelationID:", "header "+envelope.HeaderCorrelationID,
		"envelope: Origin.CausationID:", "header "+envelope.HeaderCausationID,
		"envelope: Origin.Actor:", "header "+HeaderActor,
		"envelope: Origin.TenantID:", "header "+envelope.HeaderTenantID,
		"\n", "; ",
	).Replace(err.Error())
}

// place returns where the own header that name spells stands, and whether it spells
// it exactly; -1 for a header of others.
func place(name string) (i int, exact bool) {
	for i, own := range requestHeaders {
		if len(own) == len(name) && strings.EqualFold(own, name) {
			return i, own == name
		}
	}
	return -1, false
}

// maxTimeoutDigits keeps what is read far from any overflow.
const maxTimeoutDigits = 9

// readTimeout reads the value of HeaderTimeout: milliseconds, in decimal digits
// without a leading zero, at most those of the ceiling.
func readTimeout(text string, ceiling time.Duration) (d time.Duration, fault string) {
	if text == "" {
		return 0, "is missing: say for how many milliseconds an answer is awaited"
	}
	ms := int64(0)
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' || text[0] == '0' || i == maxTimeoutDigits {
			return 0, fmt.Sprintf("must be a number of milliseconds, 1 to %d", ceiling.Milliseconds())
		}
		ms = ms*10 + int64(c-'0')
	}
	d = time.Duration(ms) * time.Millisecond
	if d > ceiling {
		return 0, fmt.Sprintf("asks for more than %d ms: work that takes longer is a command with a task", ceiling.Milliseconds())
	}
	return d, ""
}

// maxTraceparent bounds what a later version of the trace context may append.
const maxTraceparent = 256

// traceparent returns text if it is a trace context that can travel, else "": a
// fault of telemetry must not fail the work.
func traceparent(text string) string {
	if _, ok := envelope.TraceID(text); !ok || len(text) > maxTraceparent {
		return ""
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return ""
		}
	}
	return text
}
