package edge

import (
	"encoding/json"
	"net/http"
)

// problem is why a request is refused.
type problem struct {
	status int
	detail string // for the caller: a text of this package
	err    error  // for the log, where the service has to do something
}

// refuse answers with a problem (RFC 9457).
func (e *Edge) refuse(w http.ResponseWriter, correlation string, p *problem) {
	if p.err != nil {
		e.cfg.Logger.Warn("edge: a request is refused", "status", p.status, "error", p.err, "correlation_id", correlation)
	}
	body, _ := json.Marshal(struct { // strings and a number: it cannot fail
		Title         string `json:"title"`
		Status        int    `json:"status"`
		Detail        string `json:"detail"`
		CorrelationID string `json:"correlation_id"`
	}{http.StatusText(p.status), p.status, p.detail, correlation})
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	switch p.status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", e.cfg.Challenge)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(body) // whoever has gone away needs no answer
}
