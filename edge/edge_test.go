package edge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/edge"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

var kari = edge.Caller{Actor: "user:kari", TenantID: "tenant-1"}

// as authenticates everybody as the same caller.
func as(c edge.Caller, err error) func(*http.Request) (edge.Caller, error) {
	return func(*http.Request) (edge.Caller, error) { return c, err }
}

// send has one request go through an edge, and returns the answer and the origin
// that the handler saw, nil if there was none to be called.
func send(t *testing.T, authenticate func(*http.Request) (edge.Caller, error), log *slog.Logger, headers ...string) (*httptest.ResponseRecorder, *envelope.Origin) {
	t.Helper()
	e, err := edge.New(authenticate, edge.Config{Logger: log})
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodPost, "/servers", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	var seen *envelope.Origin
	w := httptest.NewRecorder()
	e.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		o, ok := envelope.OriginFrom(r.Context())
		require.True(t, ok)
		seen = &o
	})).ServeHTTP(w, r)
	return w, seen
}

func TestOriginIsMadeOfHeadersAndCaller(t *testing.T) {
	t.Parallel()
	w, o := send(t, as(kari, nil), nil, "X-Correlation-ID", "order-7", "traceparent", traceparent, "X-Causation-Id", "forged")
	require.Equal(t, &envelope.Origin{
		CorrelationID: "order-7", Actor: "user:kari", TenantID: "tenant-1", Traceparent: traceparent,
	}, o, "a person's request is caused by no message")
	require.Equal(t, "order-7", w.Header().Get(envelope.HeaderCorrelationID))

	_, o = send(t, as(kari, nil), nil, "correlation-id", "order-8", "tenant-id", "tenant-1")
	require.Equal(t, "order-8", o.CorrelationID, "the older name")

	_, o = send(t, as(edge.Caller{Actor: "service:maskin", PlatformScope: true}, nil), nil, "X-Causation-Id", "m-1")
	require.Equal(t, "m-1", o.CausationID, "a service says which message it handles")
	require.True(t, o.PlatformScope)
	require.NoError(t, o.Validate())
}

func TestCorrelationThatCannotBeUsedIsReplaced(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{
		nil,
		{"X-Correlation-Id", ""},
		{"X-Correlation-Id", "has spaces"},
		{"X-Correlation-Id", "ends\r\nSet-Cookie: a=b"},
		{"X-Correlation-Id", strings.Repeat("x", 129)},
		{"X-Correlation-Id", "one", "X-Correlation-Id", "two"},
		{"traceparent", "00-zz"},
	} {
		w, o := send(t, as(kari, nil), nil, headers...)
		id, err := uuid.Parse(o.CorrelationID)
		require.NoError(t, err, headers)
		require.EqualValues(t, 7, id.Version())
		require.Equal(t, o.CorrelationID, w.Header().Get(envelope.HeaderCorrelationID))
		require.Empty(t, o.Traceparent)
	}
}

func TestWhatNoOriginCanBeMadeOfIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		caller  edge.Caller
		err     error
		tenant  string // claimed in the header
		status  int
		logged  string
		details string
	}{
		{name: "anonymous", err: errors.New("token hunter2 is expired"), status: 401, details: "who calls"},
		{name: "forbidden", err: fmt.Errorf("%w: suspended", edge.ErrForbidden), status: 403, details: "may not"},
		{name: "unavailable", err: fmt.Errorf("%w: no keys", edge.ErrUnavailable), status: 503, logged: "no keys", details: "Try again"},
		{name: "other tenant", caller: kari, tenant: "tenant-2", status: 403, details: "another tenant"},
		{name: "tenant in platform scope", caller: edge.Caller{Actor: "operator:ola", PlatformScope: true}, tenant: "tenant-2", status: 403, details: "another tenant"},
		{name: "no tenant", caller: edge.Caller{Actor: "user:kari"}, status: 403, logged: "Origin.TenantID", details: "missing or malformed"},
		{name: "no actor", caller: edge.Caller{TenantID: "tenant-1"}, status: 403, logged: "Origin.Actor", details: "missing or malformed"},
		{name: "no kind", caller: edge.Caller{Actor: "kari", TenantID: "tenant-1"}, status: 403, logged: "Origin.Actor", details: "missing or malformed"},
		{name: "bad tenant", caller: edge.Caller{Actor: "user:kari", TenantID: "a b"}, status: 403, logged: "Origin.TenantID", details: "missing or malformed"},
		{name: "both", caller: edge.Caller{Actor: "user:kari", TenantID: "tenant-1", PlatformScope: true}, status: 403, logged: "contradicts", details: "missing or malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			headers := []string{"X-Correlation-Id", "order-7"}
			if c.tenant != "" {
				headers = append(headers, "tenant-id", c.tenant)
			}
			w, seen := send(t, as(c.caller, c.err), slog.New(slog.NewTextHandler(&log, nil)), headers...)
			require.Nil(t, seen, "the handler was called")
			require.Equal(t, c.status, w.Code)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			require.Equal(t, "order-7", w.Header().Get(envelope.HeaderCorrelationID))
			var problem struct {
				Title, Detail string
				Status        int
				CorrelationID string `json:"correlation_id"`
			}
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &problem))
			require.Equal(t, http.StatusText(c.status), problem.Title)
			require.Equal(t, c.status, problem.Status)
			require.Contains(t, problem.Detail, c.details)
			require.Equal(t, "order-7", problem.CorrelationID)
			require.NotContains(t, w.Body.String(), "hunter2")
			require.Equal(t, c.status == 401, w.Header().Get("WWW-Authenticate") == "Bearer")
			require.Equal(t, c.logged != "", strings.Contains(log.String(), "a request is refused"), log.String())
			require.Contains(t, log.String(), c.logged)
		})
	}
}

func TestNewDemandsAuthentication(t *testing.T) {
	t.Parallel()
	_, err := edge.New(nil, edge.Config{})
	require.ErrorContains(t, err, "authenticate: is nil")
}

// recorder is the network: it keeps the last request.
type recorder struct{ last *http.Request }

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.last = request
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: request}, nil
}

func TestTransportSendsTheOriginAndChangesNoRequest(t *testing.T) {
	t.Parallel()
	network := new(recorder)
	transport := edge.Transport{Base: network}
	ctx := envelope.WithOrigin(t.Context(), envelope.Origin{
		CorrelationID: "order-7", CausationID: "m-1", Actor: "user:kari", PlatformScope: true, Traceparent: traceparent,
	})
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://maskin/servers", nil)
	r.Header.Set("tenant-id", "stale")
	r.Header.Set("X-Correlation-Id", "stale")
	_, err := transport.RoundTrip(r)
	require.NoError(t, err)
	require.Equal(t, http.Header{"X-Correlation-Id": {"order-7"}, "X-Causation-Id": {"m-1"}, "Traceparent": {traceparent}}, network.last.Header)
	require.Equal(t, "stale", r.Header.Get("tenant-id"), "the request is the caller's")

	r = httptest.NewRequest(http.MethodGet, "http://maskin/servers", nil)
	_, err = transport.RoundTrip(r)
	require.NoError(t, err)
	require.Same(t, r, network.last, "without an origin there is nothing to send")
}

type serverV1 struct {
	Hostname string `json:"hostname"`
}

var ordered = envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "ordered", Version: 1})

// A request enters at one service, which calls another, which enqueues an event: the
// event tells the first request's correlation, the tenant, and who called last.
func TestEventOfARequestCarriesItsOriginAcrossServices(t *testing.T) {
	t.Parallel()
	pool := dvtest.Postgres(t)
	out, err := outbox.New(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{
		topology.Events(subject.Maskin, topology.Limits{}),
	}}, outbox.Config{})
	require.NoError(t, err)
	serve := func(authenticate func(*http.Request) (edge.Caller, error), handle func(context.Context) error) string {
		e, err := edge.New(authenticate, edge.Config{})
		require.NoError(t, err)
		server := httptest.NewServer(e.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := handle(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})))
		t.Cleanup(server.Close)
		return server.URL
	}
	post := func(ctx context.Context, url string, transport http.RoundTripper) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer of-the-service")
		answer, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			err = errors.New(answer.Status)
		}
		return errors.Join(err, answer.Body.Close())
	}
	// maskin trusts its fellow service with the tenant that it acts for.
	maskin := serve(func(r *http.Request) (edge.Caller, error) {
		return edge.Caller{Actor: "service:sentral", TenantID: r.Header.Get("tenant-id")}, nil
	}, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return out.Enqueue(ctx, tx, ordered.New("srv-1", serverV1{"db1"})) })
	})
	sentral := serve(as(kari, nil), func(ctx context.Context) error { return post(ctx, maskin, edge.Transport{}) })

	outside := envelope.WithOrigin(t.Context(), envelope.Origin{CorrelationID: "order-7", TenantID: "tenant-1", Traceparent: traceparent})
	require.NoError(t, post(outside, sentral, edge.Transport{}))
	got := dvtest.RequireEnqueued(t, pool, ordered)
	require.Equal(t, "tenant-1", got.Envelope.TenantID)
	require.EqualValues(t, "service:sentral", got.Envelope.Actor)
	require.Equal(t, "order-7", got.Envelope.CorrelationID)
}
