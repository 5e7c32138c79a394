// Command livefeed shows a tenant's events in its browsers as they come, by
// server-sent events. feed.go is the service; this file starts an embedded NATS server
// and plays the producer and the browser.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/edge"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/internal/servers"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func main() { servers.Main("livefeed", run) }

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, stop, err := servers.Broker(ctx)
	defer stop()
	if err != nil {
		return err
	}
	events := topology.Events(subject.Maskin, topology.Limits{Replicas: 1})
	if err := topology.Ensure(ctx, conn.JetStream(), topology.Set{Service: subject.Maskin, Streams: []topology.Stream{events}}); err != nil {
		return err
	}
	url, end, err := serve(ctx, conn.JetStream(), events)
	if err != nil {
		return err
	}
	defer end()
	return errors.Join(browse(ctx, url, "kari", func() error { return produce(ctx, conn.JetStream()) }), browse(ctx, url, "nobody", nil))
}

// serve runs the service on a free port, until end is called.
func serve(ctx context.Context, js jetstream.JetStream, events topology.Stream) (url string, end func(), err error) {
	entry, err := edge.New(whoCalls, edge.Config{})
	if err != nil {
		return "", nil, err
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	live := &feed{clients: map[*client]struct{}{}}
	hangUp, err := live.follow(ctx, js, events)
	if err != nil {
		return "", nil, errors.Join(err, port.Close())
	}
	server := &http.Server{Handler: entry.Wrap(live), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(port) }()
	return "http://" + port.Addr().String(), func() { hangUp(); _ = server.Close(); <-done }, nil
}

// whoCalls stands for the check of a token.
func whoCalls(r *http.Request) (edge.Caller, error) {
	if r.Header.Get("Authorization") != "Bearer kari" {
		return edge.Caller{}, errors.New("no such token")
	}
	return edge.Caller{Actor: "user:kari", TenantID: "tenant-1"}, nil
}

// browse opens the feed with a token, calls then once it is open, and prints the first
// event that comes.
func browse(ctx context.Context, url, token string, then func() error) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	fmt.Println(token, answer.StatusCode)
	if answer.StatusCode != http.StatusOK {
		return nil
	}
	if err := then(); err != nil {
		return err
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "event: ") || strings.HasPrefix(lines.Text(), "data: ") {
			fmt.Println(lines.Text())
		}
		if strings.HasPrefix(lines.Text(), "data: ") {
			return nil
		}
	}
	return lines.Err()
}

type serverV1 struct {
	Hostname string `json:"hostname"`
}

// produce publishes an event of another tenant, an internal one, and one for kari. A
// service has an outbox for it.
func produce(ctx context.Context, js jetstream.JetStream) error {
	ready := envelope.MustEvent[serverV1](envelope.EventSpec{Service: subject.Maskin, Entity: "server", Verb: "ready", Version: 1})
	for _, e := range []struct {
		tenant string
		draft  envelope.Draft
	}{
		{"tenant-2", ready.New("server-1", serverV1{"theirs"}, envelope.ExternallyVisible())},
		{"tenant-1", ready.New("server-2", serverV1{"not for browsers"})},
		{"tenant-1", ready.New("server-3", serverV1{"db3.oslo.example"}, envelope.ExternallyVisible())},
	} {
		m, err := envelope.New(envelope.WithOrigin(ctx, envelope.NewOrigin("system:maskin", e.tenant)), subject.Maskin, e.draft)
		if err != nil {
			return err
		}
		if err := servers.Publish(ctx, js, m); err != nil {
			return err
		}
	}
	return nil
}
