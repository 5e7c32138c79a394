package sites_test

import (
	"context"
	"log"
	"net/http"

	"codeberg.org/dataverket/messaging/health"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/topology"
)

// A service watches its flows beside its relay, and tells of them where it tells
// whether it is ready. A link that is down does not take it out of service.
func ExampleNew() {
	run := func(ctx context.Context, conn *natsconn.Conn, set topology.Set, relay *outbox.Relay) error {
		w, err := sites.New(conn, set, sites.Config{})
		if err != nil {
			return err
		}
		h, err := health.New(health.Config{}, health.Of("relay", relay), health.Info("sites", w))
		if err != nil {
			return err
		}
		http.Handle("/readyz", h.Ready())
		return w.Run(ctx)
	}
	log.Printf("%T", run)
}
