package outbox

import (
	"errors"
	"strings"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// enqueueFault is the class of an error of Enqueue, for its spans.
func enqueueFault(err error) string {
	if err == nil {
		return ""
	}
	if _, held := errors.AsType[*BackpressureError](err); held {
		return "backpressure"
	}
	return "refused"
}

// traced begins the span of a page that joins the flight.
func (p *pipeline) traced(rows []row) telemetry.Span {
	if !p.tracer.On() {
		return telemetry.Span{}
	}
	span := p.tracer.Send(p.stream, commonSubject(rows), p.cfg.Site, len(rows))
	span.LinkAll(len(rows), func(i int) string { return headerValue(rows[i].headers, envelope.HeaderTraceparent) })
	return span
}

// endTraces ends the spans of pages whose outcome is unknown, and why.
func (f *flight) endTraces(why error) {
	for _, page := range f.pages {
		page.span.End(faultClass(why))
	}
}

// commonSubject is the subject of all rows, "" if they have several.
func commonSubject(rows []row) string {
	for i := range rows {
		if rows[i].subject != rows[0].subject {
			return ""
		}
	}
	return rows[0].subject
}

// headerValue finds a header in the text of a row, "" if it is not there.
func headerValue(headers, name string) string {
	for len(headers) > 0 {
		line, rest, _ := strings.Cut(headers, "\r\n")
		if value, found := strings.CutPrefix(line, name); found {
			if value, found = strings.CutPrefix(value, ": "); found {
				return value
			}
		}
		headers = rest
	}
	return ""
}

// ids are what a row is found by in logs and traces, and where its resource belongs.
func (r *row) ids() []any {
	ids := []any{"message", r.uuid()}
	for _, h := range [...]struct{ key, name string }{
		{"correlation_id", envelope.HeaderCorrelationID}, {"trace_id", envelope.HeaderTraceID},
	} {
		if value := headerValue(r.headers, h.name); value != "" {
			ids = append(ids, h.key, value)
		}
	}
	if e, err := envelope.Decode(r.envelope); err == nil && e.DatacenterID != "" {
		ids = append(ids, "datacenter_id", strings.Clone(e.DatacenterID)) // of a page's memory
	}
	return ids
}
