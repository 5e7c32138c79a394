package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"codeberg.org/dataverket/messaging/edge"
	"codeberg.org/dataverket/messaging/envelope"
)

// A request of a user of a tenant, and one of nobody.
func ExampleEdge_Wrap() {
	authenticate := func(r *http.Request) (edge.Caller, error) {
		if r.Header.Get("Authorization") != "Bearer kari's token" {
			return edge.Caller{}, errors.New("no such token")
		}
		return edge.Caller{Actor: "user:kari", TenantID: "tenant-1"}, nil
	}
	e, err := edge.New(authenticate, edge.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := e.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o, _ := envelope.OriginFrom(r.Context()) // outbox.Enqueue finds it there
		fmt.Println(o.Actor, o.TenantID, o.CorrelationID)
		_, _ = io.WriteString(w, "welcome")
	}))
	for _, token := range []string{"Bearer kari's token", ""} {
		r := httptest.NewRequest(http.MethodPost, "/servers", nil)
		r.Header.Set("Authorization", token)
		r.Header.Set("X-Correlation-Id", "order-7")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Printf("%d %s\n", w.Code, w.Body)
	}
	// Output:
	// user:kari tenant-1 order-7
	// 200 welcome
	// 401 {"title":"Unauthorized","status":401,"detail":"The request does not say who calls, or cannot prove it.","correlation_id":"order-7"}
}

// A call to another service is correlated by its context.
func ExampleTransport() {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Header.Get(envelope.HeaderCorrelationID), r.Header.Get(envelope.HeaderTenantID))
	}))
	defer other.Close()
	ctx := envelope.WithOrigin(context.Background(), envelope.Origin{CorrelationID: "order-7", Actor: "user:kari", TenantID: "tenant-1"})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, other.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: edge.Transport{}}
	answer, err := client.Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.StatusCode, answer.Body.Close())
	// Output:
	// order-7 tenant-1
	// 200 <nil>
}
