package health_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"codeberg.org/dataverket/messaging/health"
)

// A process that lives and is not ready, because one of its parts is not.
func ExampleNew() {
	h, err := health.New(health.Config{},
		health.Func("broker", func(context.Context) error { return nil }),
		health.Func("database", func(context.Context) error { return errors.New("connection refused") }),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/readyz", h.Ready())
	mux.Handle("/livez", h.Live())
	for _, path := range []string{"/readyz", "/livez"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Println(path, w.Code)
	}
	// Output:
	// /readyz 503
	// /livez 200
}
