package main

import (
	"context"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/examples/quickstart/maskinevents"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// maskinDurable is constant: how maskin reads its commands. One message is in
// flight at a time, which keeps the requests for a server in order: a resize is
// never delivered before the provisioning in front of it is settled, whoever was
// killed in between. It costs throughput (README.md has the figure); services
// whose messages need no order leave MaxAckPending at its default.
var maskinDurable = topology.Consumer{
	Durable: "maskin__commands", Stream: maskinevents.Commands(), Filter: subject.CommandsOf(subject.Maskin),
	MaxAckPending: 1, Start: topology.StartFirst(),
}

// hostname is what maskin can put into DNS.
var hostname = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// maskin carries out commands and says what it did.
type maskin struct{ out *outbox.Outbox }

// runMaskin is the whole service: commands in, events out.
func runMaskin(ctx context.Context, cfg settings) error {
	end, err := open(ctx, subject.Maskin, cfg)
	if err != nil {
		return err
	}
	defer end.close()

	durable := maskinDurable
	durable.AckWait = cfg.AckWait
	set := topology.Set{
		Service: subject.Maskin,
		Streams: []topology.Stream{
			maskinevents.Commands(), maskinevents.Events(),
			topology.DeadLetters(subject.Maskin, topology.Limits{}), topology.DeadLetterOps(subject.Maskin, topology.Limits{}),
		},
		Consumers: []topology.Consumer{durable},
	}
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
	in, err := inbox.New(end.pool, durable.Durable, inbox.Config{})
	if err != nil {
		return err
	}
	dead, err := dlq.Open(ctx, end.js, subject.Maskin, dlq.Config{})
	if err != nil {
		return err
	}
	m := &maskin{out}
	commands, err := consumer.New(end.js, dead, consumer.Config{Consumer: durable, Store: in},
		inbox.On(in, maskinevents.Provision, m.provision),
		inbox.On(in, maskinevents.Resize, m.resize),
	)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return relay.Run(ctx) })
	g.Go(func() error { return commands.Run(ctx) })
	return g.Wait()
}

// provision makes a server. What no retry can heal is a dead letter at once, with
// a cause that says what to do.
func (m *maskin) provision(ctx context.Context, tx pgx.Tx, c envelope.Received[maskinevents.ProvisionV1]) error {
	id, want := c.Envelope.Subject, c.Data
	if want.Hostname == "" {
		return envelope.Permanent(fmt.Errorf("maskin: provision %s: hostname is missing: order the server again with one", id))
	}
	if !hostname.MatchString(want.Hostname) {
		return envelope.Permanent(fmt.Errorf("maskin: provision %s: hostname %q does not fit into DNS: use a-z, 0-9 and hyphens", id, want.Hostname))
	}
	done, err := tx.Exec(ctx, `insert into servers (id, tenant_id, hostname, site, size, revision)
		select $1, $2, $3, $4, name, $6 from sizes where name = $5`,
		id, c.Envelope.TenantID, want.Hostname, want.Site, want.Size, want.Revision)
	if err != nil {
		return err
	}
	if done.RowsAffected() == 0 {
		return envelope.Permanent(fmt.Errorf("maskin: provision %s: size %q is not in the catalogue: add it to sizes and replay, or order another", id, want.Size))
	}
	if err := record(ctx, tx, c.Delivery, want.Revision); err != nil {
		return err
	}
	return m.out.Enqueue(ctx, tx, maskinevents.ServerProvisioned.New(id, maskinevents.ServerProvisionedV1(want), envelope.Datacenter(want.Site)))
}

// resize gives a server another size.
func (m *maskin) resize(ctx context.Context, tx pgx.Tx, c envelope.Received[maskinevents.ResizeV1]) error {
	id, want := c.Envelope.Subject, c.Data
	done, err := tx.Exec(ctx, `update servers set size = sizes.name, revision = $3
		from sizes where servers.id = $1 and sizes.name = $2`, id, want.Size, want.Revision)
	if err != nil {
		return err
	}
	if done.RowsAffected() == 0 {
		return envelope.Permanent(fmt.Errorf("maskin: resize %s to %q: no such server or size: look for a dead letter of the server", id, want.Size))
	}
	if err := record(ctx, tx, c.Delivery, want.Revision); err != nil {
		return err
	}
	return m.out.Enqueue(ctx, tx, maskinevents.ServerResized.New(id, maskinevents.ServerResizedV1(want)))
}
