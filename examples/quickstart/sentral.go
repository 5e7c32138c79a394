package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// writers is how many requests sentral accepts at once.
const writers = 4

// sentral takes the tenants' requests and turns each into a command to maskin.
type sentral struct {
	pool *pgxpool.Pool
	out  *outbox.Outbox
}

// runSentral is the whole service: an outbox and no consumer.
func runSentral(ctx context.Context, cfg settings) error {
	end, err := open(ctx, subject.Sentral, cfg)
	if err != nil {
		return err
	}
	defer end.close()

	// The stream is maskin's: it is verified, never created or changed here.
	set := topology.Set{Service: subject.Sentral, Streams: []topology.Stream{maskinevents.Commands()}}
	if err := topology.Ensure(ctx, end.js, set); err != nil {
		return err
	}
	out, err := outbox.New(set, outbox.Config{})
	if err != nil {
		return err
	}
	relay, err := outbox.NewRelay(out, end.pool, end.js, outbox.RelayConfig{LeaseTTL: cfg.LeaseTTL})
	if err != nil {
		return err
	}
	servers, err := readServers(inputFile, cfg.Servers)
	if err != nil {
		return err
	}
	s := &sentral{end.pool, out}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return relay.Run(ctx) })
	for w := range uint32(writers) {
		g.Go(func() error { return s.acceptAll(ctx, requestsFor(servers, cfg.Seed), w) })
	}
	return g.Wait()
}

// acceptAll plays the tenants of one writer. All requests for a server are with
// one of them, because a tenant too asks for the second when it has the first.
func (s *sentral) acceptAll(ctx context.Context, requests []request, writer uint32) error {
	for _, r := range requests {
		if crc32.ChecksumIEEE([]byte(r.ID))%writers != writer {
			continue
		}
		if err := s.accept(ctx, r); err != nil {
			return fmt.Errorf("sentral: accept request %d for %s: %w", r.Revision, r.ID, err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// accept commits the request and its command together, or neither. This is where
// a workflow begins, so here it gets its correlation id.
func (s *sentral) accept(ctx context.Context, r request) error {
	origin := envelope.NewOrigin(envelope.Actor("user:"+r.OrderedBy), r.Tenant)
	ctx = envelope.WithOrigin(ctx, origin)
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// The row lock orders the requests for a server, and so their commands.
		var revision int
		err := tx.QueryRow(ctx, `insert into orders as o values ($1, 1, $2)
			on conflict (server_id) do update set revision = o.revision + 1, size = excluded.size
			returning revision`, r.ID, r.Size).Scan(&revision)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `insert into requests (server_id, revision, tenant_id, site, size, correlation_id)
			values ($1, $2, $3, $4, $5, $6)`, r.ID, revision, r.Tenant, r.Site, r.Size, origin.CorrelationID)
		if err != nil {
			return err
		}
		return s.out.Enqueue(ctx, tx, r.command(revision))
	})
	const foreignKeyViolation = "23503"
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == foreignKeyViolation {
		_, err = s.pool.Exec(ctx, `insert into refusals values ($1, $2)`, r.ID, refused.Message)
	}
	if ctx.Err() != nil {
		return nil // stopped: the request was not accepted, and nothing is left of it
	}
	return err
}

// command is what maskin is asked to do. The server's id is the resource id, and
// with it the ordering key.
func (r request) command(revision int) envelope.Draft {
	if revision == 1 {
		return maskinevents.Provision.New(r.ID, maskinevents.ProvisionV1{
			Hostname: r.Hostname, Site: r.Site, Size: r.Size, Revision: revision,
		}, envelope.Datacenter(r.Site))
	}
	return maskinevents.Resize.New(r.ID, maskinevents.ResizeV1{Size: r.Size, Revision: revision}, envelope.Datacenter(r.Site))
}
