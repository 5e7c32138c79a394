// Package edge is where HTTP requests enter the platform: it gives each its origin,
// so that what a handler enqueues is correlated, and says who did it and for which
// tenant (requirements X2, X4).
//
// # Usage
//
//	e, err := edge.New(authenticate, edge.Config{})
//	http.ListenAndServe(addr, e.Wrap(mux))
//
// Authentication is the service's; the function returns who calls:
//
//	func authenticate(r *http.Request) (edge.Caller, error) {
//		claims, err := verify(r.Header.Get("Authorization"))
//		if err != nil {
//			return edge.Caller{}, err // 401
//		}
//		actor, err := envelope.NewActor(envelope.ActorUser, claims.Subject)
//		return edge.Caller{Actor: actor, TenantID: claims.Tenant}, err
//	}
//
// In a handler r.Context() carries the origin, which is all that outbox.Enqueue and
// tenant.Setting.Set need. Calls to other services take it along:
//
//	client := &http.Client{Transport: edge.Transport{}, Timeout: 5 * time.Second}
//
// # Where an origin comes from
//
//	correlation  X-Correlation-Id, or the older correlation-id, in any case; one that
//	             is missing, malformed, or there twice with different values is replaced
//	             by a new id. The answer carries it as X-Correlation-Id, a refusal too
//	causation    X-Causation-Id of a caller of kind service; of others nothing
//	actor        Caller.Actor
//	tenant       Caller.TenantID, or none with Caller.PlatformScope
//	trace        traceparent, if it is one
//
// # Refusals
//
// What no origin can be made of does not reach the handler. The answer is a problem
// of RFC 9457, application/problem+json, with the correlation id:
//
//	401  authenticate returned an error
//	403  it returned ErrForbidden; the header tenant-id names another tenant than the
//	     caller's; actor or tenant are missing or malformed, or the tenant contradicts
//	     PlatformScope (logged, since the service has to mend it)
//	503  it returned ErrUnavailable (logged)
//
// # Concurrency
//
// An Edge and a Transport are safe for concurrent use, and so must authenticate be.
//
// # Security
//
// Headers are claims. The tenant and the actor are never taken from one, unless
// authenticate does. A correlation id groups what belongs together and grants
// nothing: whoever sends another's id only makes a workflow harder to read. The text
// of an error of authenticate is not sent.
package edge
