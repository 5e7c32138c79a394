package outbox_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The streams a service publishes to are declared once; a message for any
// other is refused.
func ExampleNew() {
	set := topology.Set{
		Service: subject.Maskin,
		Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})},
	}
	_, err := outbox.New(set, outbox.Config{Schema: "messaging"})
	fmt.Println(err)
	_, err = outbox.New(set, outbox.Config{MaxSize: 1 << 30})
	fmt.Println(err)
	// Output:
	// <nil>
	// outbox: Config.MaxSize: 1073741824 is out of range; use 1 to 524288, or 0 for the default
}

// State and event commit together or not at all.
func ExampleOutbox_Enqueue() {
	handle := func(ctx context.Context, pool *pgxpool.Pool, out *outbox.Outbox, serverID string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			// The row lock makes the order of this server's events defined.
			if _, err := tx.Exec(ctx, `update server set state = 'ready' where id = $1`, serverID); err != nil {
				return err
			}
			return out.Enqueue(ctx, tx, serverCounted.New(serverID, counted{Key: serverID, N: 1}))
		})
	}
	_ = handle
}

// At the edge of the platform there is no origin yet: the handler of an HTTP
// request makes one, and everything that follows carries it.
func ExampleOutbox_Enqueue_edge() {
	accept := func(ctx context.Context, tx pgx.Tx, out *outbox.Outbox, user, tenant string) error {
		actor, err := envelope.NewActor(envelope.ActorUser, user)
		if err != nil {
			return err
		}
		ctx = envelope.WithOrigin(ctx, envelope.NewOrigin(actor, tenant))
		return out.Enqueue(ctx, tx, provision.New("link-1", counted{}))
	}
	_ = accept
}

// One relay per replica; one of them leads.
func ExampleNewRelay() {
	serve := func(ctx context.Context, out *outbox.Outbox, pool *pgxpool.Pool, js jetstream.JetStream) error {
		relay, err := outbox.NewRelay(out, pool, js, outbox.RelayConfig{Site: "dc1"})
		if err != nil {
			return err
		}
		return relay.Run(ctx) // until ctx ends, then hands over
	}
	_ = serve
}

// What an operator asks first.
func ExampleReadStatus() {
	show := func(ctx context.Context, pool *pgxpool.Pool) error {
		status, err := outbox.ReadStatus(ctx, pool, "messaging")
		if err != nil {
			return err
		}
		for _, s := range status.Streams {
			fmt.Printf("%s: %d waiting, the oldest for %v\n", s.Stream, s.Unpublished, s.OldestAge)
		}
		return nil
	}
	_ = show
}
