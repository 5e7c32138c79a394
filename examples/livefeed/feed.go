package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	room    = 64               // events that wait for one client
	silence = 15 * time.Second // after which a line keeps proxies from hanging up
	stuck   = 5 * time.Second  // for which one write may take
)

// feed shows the events of a stream to browsers as they come. One reader serves all
// clients of this process; nothing is kept for those who are away. Whoever needs every
// event is a consumer.
type feed struct {
	mu      sync.Mutex
	clients map[*client]struct{}
}

// client is one open connection of a tenant.
type client struct {
	tenant string
	events chan *envelope.Envelope // closed when the client is too slow
}

// follow pushes what is stored from now on, until hangUp is called. Each replica has a reader
// of its own, which leaves no durable behind.
func (f *feed) follow(ctx context.Context, js jetstream.JetStream, stream topology.Stream) (hangUp func(), err error) {
	reader, err := js.OrderedConsumer(ctx, stream.Name, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return nil, err
	}
	reading, err := reader.Consume(func(m jetstream.Msg) {
		e, err := open(m)
		if err != nil {
			slog.Warn("not shown", "subject", m.Subject(), "error", err) // the consumers make it a dead letter
			return
		}
		f.push(e)
	})
	if err != nil {
		return nil, err
	}
	return func() { reading.Stop(); <-reading.Closed() }, nil
}

// open trusts an envelope, and so its tenant, only if subject and headers agree.
func open(m jetstream.Msg) (*envelope.Envelope, error) {
	e, err := envelope.Decode(m.Data())
	if err != nil {
		return nil, err
	}
	on, err := subject.Parse(m.Subject())
	if err != nil {
		return nil, err
	}
	return e, errors.Join(e.CheckSubject(on), e.CheckHeader(envelope.Header(m.Headers())))
}

// push never waits: a client that has no room left is let go, and nobody else notices.
func (f *feed) push(e *envelope.Envelope) {
	if e.Visibility != envelope.External || e.TenantID == "" {
		return // it stays in the platform
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.clients {
		if c.tenant != e.TenantID {
			continue
		}
		select {
		case c.events <- e:
		default:
			delete(f.clients, c)
			close(c.events)
		}
	}
}

func (f *feed) join(tenant string) *client {
	c := &client{tenant, make(chan *envelope.Envelope, room)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clients[c] = struct{}{}
	return c
}

func (f *feed) leave(c *client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.clients, c)
}

// ServeHTTP streams the events of the caller's tenant (text/event-stream). The edge
// has said who calls.
func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller, _ := envelope.OriginFrom(r.Context())
	if caller.TenantID == "" {
		http.Error(w, "the feed is a tenant's", http.StatusForbidden)
		return
	}
	c := f.join(caller.TenantID)
	defer f.leave(c)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	quiet := time.NewTicker(silence)
	defer quiet.Stop()
	for err := say(w, ": welcome\n\n"); err == nil; {
		select {
		case <-r.Context().Done():
			return
		case <-quiet.C:
			err = say(w, ": still here\n\n")
		case e, ok := <-c.events:
			if !ok {
				_ = say(w, "event: dropped\ndata: too slow; load the page again\n\n")
				return
			}
			data, _ := json.Marshal(map[string]any{"resource": e.Subject, "data": e.Data}) // valid, and in one line
			err = say(w, fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Type, data))
		}
	}
}

// say writes and flushes, and gives up on a connection that takes nothing.
func say(w http.ResponseWriter, text string) error {
	to := http.NewResponseController(w)
	if err := to.SetWriteDeadline(time.Now().Add(stuck)); err != nil {
		return err
	}
	if _, err := w.Write([]byte(text)); err != nil {
		return err
	}
	return to.Flush()
}
