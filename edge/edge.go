package edge

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"slices"

	"codeberg.org/dataverket/messaging/envelope"
)

// What authenticate may say other than that nobody is authenticated.
var (
	// ErrForbidden: the caller is known and may not do this. The answer is 403.
	ErrForbidden = errors.New("edge: forbidden")
	// ErrUnavailable: nobody can tell who calls at the moment, such as while keys
	// cannot be fetched. The answer is 503.
	ErrUnavailable = errors.New("edge: authentication is not available")
)

// Caller is who sent a request, and for whom, as the service's authentication
// found.
type Caller struct {
	// Actor is who calls. Required.
	Actor envelope.Actor
	// TenantID is the tenant that the request is for. Required, unless PlatformScope
	// is set.
	TenantID string
	// PlatformScope says that the request is for no tenant. It has to be said, so
	// that a forgotten tenant is a refusal and not a request for everybody. Default
	// false.
	PlatformScope bool
}

// Config tunes an Edge. The zero value is good for most.
type Config struct {
	// Challenge is the WWW-Authenticate header of a 401. Default "Bearer".
	Challenge string
	// Logger gets a line for each refusal that is not the caller's fault: the error,
	// and no header of the request but the correlation id. Default slog.Default().
	Logger *slog.Logger
}

// Edge gives requests their origin. Make it with New; it is safe for concurrent use.
type Edge struct {
	authenticate func(*http.Request) (Caller, error)
	cfg          Config
}

// New returns an edge that asks authenticate who calls, once for each request and
// from many goroutines. An error of it is a 401, unless it matches ErrForbidden or
// ErrUnavailable. It must not read the body.
func New(authenticate func(*http.Request) (Caller, error), cfg Config) (*Edge, error) {
	if authenticate == nil {
		return nil, errors.New("edge: authenticate: is nil; pass the function that tells who sent a request")
	}
	cfg.Challenge = cmp.Or(cfg.Challenge, "Bearer")
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Edge{authenticate, cfg}, nil
}

// Wrap returns a handler that calls next with an origin in the request's context
// (envelope.OriginFrom), or refuses the request.
func (e *Edge) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := envelope.OriginFromHeader(envelope.Header(r.Header))
		if o.CorrelationID == "" {
			o.CorrelationID = envelope.NewOrigin("", "").CorrelationID
		}
		w.Header().Set(envelope.HeaderCorrelationID, o.CorrelationID)
		if p := e.identify(r, &o); p != nil {
			e.refuse(w, o.CorrelationID, p)
			return
		}
		next.ServeHTTP(w, r.WithContext(envelope.WithOrigin(r.Context(), o)))
	})
}

// identify completes an origin with who calls, or says why it cannot.
func (e *Edge) identify(r *http.Request, o *envelope.Origin) *problem {
	caller, err := e.authenticate(r)
	switch {
	case errors.Is(err, ErrUnavailable):
		return &problem{status: http.StatusServiceUnavailable, detail: "It cannot be told at the moment who calls. Try again.", err: err}
	case errors.Is(err, ErrForbidden):
		return &problem{status: http.StatusForbidden, detail: "The caller may not do this."}
	case err != nil:
		return &problem{status: http.StatusUnauthorized, detail: "The request does not say who calls, or cannot prove it."}
	}
	o.Actor, o.TenantID, o.PlatformScope = caller.Actor, caller.TenantID, caller.PlatformScope
	if caller.Actor.Kind() != envelope.ActorService {
		o.CausationID = "" // a person's request is caused by no message
	}
	if !agrees(r.Header, caller) {
		return &problem{status: http.StatusForbidden, detail: "The header tenant-id names another tenant than the caller's."}
	}
	if err := o.Validate(); err != nil {
		return &problem{status: http.StatusForbidden, detail: "The caller's actor or tenant is missing or malformed.", err: err}
	}
	return nil
}

// agrees tells whether a request claims no other tenant than its caller's. A caller
// of platform scope has none, so that a claim is one too many.
func agrees(h http.Header, caller Caller) bool {
	return !slices.ContainsFunc(h.Values(envelope.HeaderTenantID), func(claimed string) bool { return claimed != caller.TenantID })
}
