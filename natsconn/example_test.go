package natsconn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
)

// A service dials once, shares the connection, and drains it last.
func ExampleDial() {
	run := func(ctx context.Context) error {
		conn, err := natsconn.Dial(ctx, natsconn.Config{
			URL:          os.Getenv("NATS_URL"),
			Service:      subject.Maskin,
			DrainTimeout: 20 * time.Second,
		})
		if err != nil {
			return err
		}
		// By now ctx has ended, so the drain must not hang on it.
		defer func() { _ = conn.Drain(context.WithoutCancel(ctx)) }()

		_ = conn.JetStream() // relay, consumers, ...
		<-ctx.Done()
		return nil
	}
	_ = run
}

// With FailFast the error of a command line tool names the server and what to
// do, and no password.
func ExampleDial_failFast() {
	_, err := natsconn.Dial(context.Background(), natsconn.Config{
		URL:      "nats://ola:hemmelig@127.0.0.1:1",
		FailFast: true,
		Logger:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if notReady, ok := errors.AsType[*natsconn.NotReadyError](err); ok {
		fmt.Println(notReady.Reason)
		fmt.Println(notReady.URL)
	}
	// Output:
	// never_connected
	// nats://xxxxx@127.0.0.1:1
}

// The readiness endpoint is up before the connection is.
func ExampleConn_Ready() {
	var conn atomic.Pointer[natsconn.Conn] // filled when Dial returns
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := conn.Load().Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	fmt.Println(conn.Load().Ready())
	// Output: natsconn: not ready: never connected
}

// Do bounds a call and, with a breaker, does not make it while the broker does
// not answer.
func ExampleConn_Do() {
	list := func(ctx context.Context, conn *natsconn.Conn) error {
		return conn.Do(ctx, func(ctx context.Context) error {
			_, err := conn.JetStream().AccountInfo(ctx)
			return err
		})
	}
	_ = list
}
