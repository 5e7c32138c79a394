package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/edge"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/service/plattformapi"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/task"
)

// api is the service's HTTP API. Requests have an origin, which the edge gives them
// and Enqueue reads from their context.
type api struct {
	pool *pgxpool.Pool
	out  *outbox.Outbox
}

// newAPI returns the API behind the edge, which lets only callers in.
func newAPI(pool *pgxpool.Pool, out *outbox.Outbox, callers map[string]edge.Caller) (http.Handler, error) {
	a := api{pool, out}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes/{id}", a.getNode)
	mux.HandleFunc("POST /nodes/{id}/drain", a.drain)
	mux.HandleFunc("POST /nodes/{id}/workloads/{workload}", a.place)
	e, err := edge.New(func(r *http.Request) (edge.Caller, error) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if caller, ok := callers[token]; ok {
			return caller, nil
		}
		return edge.Caller{}, errors.New("no such token")
	}, edge.Config{})
	if err != nil {
		return nil, err
	}
	return e.Wrap(mux), nil
}

// getNode answers with a node of the caller's tenant.
func (a api) getNode(w http.ResponseWriter, r *http.Request) {
	origin, _ := envelope.OriginFrom(r.Context())
	node, err := findNode(r.Context(), a.pool, origin.TenantID, r.PathValue("id"))
	answer(w, r, http.StatusOK, node, err)
}

// place has a workload run on a node.
func (a api) place(w http.ResponseWriter, r *http.Request) {
	ctx, id := r.Context(), r.PathValue("id")
	origin, _ := envelope.OriginFrom(ctx)
	node, err := findNode(ctx, a.pool, origin.TenantID, id)
	if err == nil {
		_, err = a.pool.Exec(ctx, `insert into workload (id, node) values ($1, $2) on conflict (id) do nothing`, r.PathValue("workload"), id)
	}
	answer(w, r, http.StatusOK, node, err)
}

// drain accepts the request and answers with the id of its task, which the task API of
// sentral shows and cancels. The command and the task are there if the transaction
// commits, and only then.
func (a api) drain(w http.ResponseWriter, r *http.Request) {
	ctx, id := r.Context(), r.PathValue("id")
	origin, _ := envelope.OriginFrom(ctx)
	var accepted struct {
		Task string `json:"task"`
	}
	err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		node, err := findNode(ctx, tx, origin.TenantID, id)
		if err != nil {
			return err
		}
		command := plattformapi.Drain.New(id, plattformapi.DrainV1{Reason: r.URL.Query().Get("reason")})
		accepted.Task, err = task.Start(ctx, tx, a.out, command, "Drain "+node.Hostname)
		return err
	})
	answer(w, r, http.StatusAccepted, accepted, err)
}

// answer writes a body or an error. Callers learn what they can act on; the rest is
// for the log, beside the correlation id that the answer carries, too.
func answer(w http.ResponseWriter, r *http.Request, status int, body any, err error) {
	var late *outbox.BackpressureError
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // the caller is gone: nobody to tell
	case errors.Is(err, errNoNode):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.As(err, &late):
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too much is waiting to be published", http.StatusServiceUnavailable)
	default:
		origin, _ := envelope.OriginFrom(r.Context())
		slog.ErrorContext(r.Context(), "request failed", "route", r.Pattern, "correlation_id", origin.CorrelationID, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}
