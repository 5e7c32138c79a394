package edge

import (
	"net/http"

	"codeberg.org/dataverket/messaging/envelope"
)

// Transport is an http.RoundTripper for calls to other services of the platform: it
// sends X-Correlation-Id, X-Causation-Id, tenant-id and traceparent of the origin in
// the request's context, in place of such headers that are there. Without an origin
// the request is sent as it is. Who calls is for the service's credentials to say,
// and for the other side's Edge to check.
//
// Do not use it for calls that leave the platform: they would tell the tenant's id.
type Transport struct {
	// Base sends the request. Default http.DefaultTransport.
	Base http.RoundTripper
}

// RoundTrip sends a copy of r with the headers of its origin.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	o, ok := envelope.OriginFrom(r.Context())
	if !ok {
		return base.RoundTrip(r)
	}
	r = r.Clone(r.Context()) // a RoundTripper must not change its request
	if r.Header == nil {
		r.Header = http.Header{}
	}
	for _, h := range [...]struct{ name, value string }{
		{envelope.HeaderCorrelationID, o.CorrelationID},
		{envelope.HeaderCausationID, o.CausationID},
		{envelope.HeaderTenantID, o.TenantID},
		{envelope.HeaderTraceparent, o.Traceparent},
	} {
		r.Header.Del(h.name)
		if h.value != "" {
			r.Header.Set(h.name, h.value)
		}
	}
	return base.RoundTrip(r)
}
