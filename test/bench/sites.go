package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/twosites"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// The sites of the rows: messages go from one to the other.
const (
	origin1 = "osl1"
	target1 = "trd1"
)

// siteRows measures how fast a backlog crosses the link between two sites: by a
// declared flow, with the rights and deny lists that the library writes, filtered and
// deduplicated, beside plain sourcing over a link that allows everything. Once until
// the copy holds it, and once until a consumer has handled it.
func siteRows(ctx context.Context, b *bench) ([]Row, error) {
	ours, err := b.twoSites(ctx, topology.Network.ServerConfig)
	if err != nil {
		return nil, err
	}
	defer ours.close()
	plain, err := b.twoSites(ctx, openConfig)
	if err != nil {
		return nil, err
	}
	defer plain.close()
	f, err := b.interleave(ctx,
		side{"flow, to the copy", ours.flow},
		side{"plain source, to the copy", plain.source},
		side{"flow, to the consumer", ours.consumed},
		side{"plain source, to Messages and Ack", plain.read},
	)
	if err != nil {
		return nil, err
	}
	return []Row{
		ratioRow("sites/copy", "flow over the link, to the copy / plain sourcing over an open link", "msg/s", 0.7, f[0], f[1]),
		ratioRow("sites/consumer", "the same to a consumer with full decode / to raw Messages and Ack without", "msg/s", 0.7, f[2], f[3]),
	}, nil
}

// sitesOf is two sites with a backlog at one of them.
type sitesOf struct {
	dir      string
	pair     *twosites.Pair
	from, to *natsconn.Conn
	dead     *dlq.Queue
	size     int
}

func (b *bench) twoSites(ctx context.Context, write func(topology.Network, string) (string, error)) (s *sitesOf, err error) {
	s = &sitesOf{size: b.sizes.consumed}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "bench-sites-"); err != nil {
		return nil, err
	}
	flows := []topology.Flow{{From: origin1, To: target1, Cargo: topology.CargoEvents, Service: subject.Maskin, Owner: subject.Plattform}}
	if s.pair, err = twosites.Start(ctx, s.dir, twosites.Options{A: origin1, B: target1, Flows: flows, ServerConfig: write}); err != nil {
		return nil, err
	}
	if s.from, err = dialSite(ctx, s.pair.A()); err != nil {
		return nil, err
	}
	if s.to, err = dialSite(ctx, s.pair.B()); err != nil {
		return nil, err
	}
	if err := topology.Ensure(ctx, s.from.JetStream(), set()); err != nil {
		return nil, err
	}
	return s, s.load(ctx)
}

func dialSite(ctx context.Context, site *twosites.Site) (*natsconn.Conn, error) {
	return natsconn.Dial(ctx, natsconn.Config{URL: site.Address(), FailFast: true, Options: []nats.Option{site.User()}, Logger: silent()})
}

func (s *sitesOf) close() {
	for _, conn := range []*natsconn.Conn{s.from, s.to} {
		if conn != nil {
			conn.NATS().Close()
		}
	}
	if s.pair != nil {
		s.pair.Stop()
	}
	_ = os.RemoveAll(s.dir)
}

// load publishes the backlog at the site of origin.
func (s *sitesOf) load(ctx context.Context) error {
	return publishBacklog(origin(ctx), s.from.JetStream(), s.size, nil)
}

// openConfig is a link without rights and without deny lists, as somebody tries it
// first.
func openConfig(n topology.Network, name string) (string, error) {
	const common = `
server_name: $DV_SERVER_NAME
listen: $DV_LISTEN
jetstream { store_dir: $DV_STORE_DIR, domain: %s }
accounts { DV { jetstream: enabled, users: [ { user: $DV_USER, password: $DV_PASSWORD } %s ] } }
leafnodes { %s }
`
	site, ok := n.Site(name)
	if !ok {
		return "", fmt.Errorf("there is no site %s", name)
	}
	if len(site.Accepts) > 0 {
		other := `, { user: leaf_` + target1 + `, password: $DV_LEAF_` + strings.ToUpper(target1) + `_PASSWORD }`
		return fmt.Sprintf(common, name, other, `listen: $DV_LEAF_LISTEN, no_advertise: true`), nil
	}
	remote := `remotes: [ { urls: [ $DV_LEAF_` + strings.ToUpper(origin1) + `_URL ], account: DV } ]`
	return fmt.Sprintf(common, name, "", remote), nil
}

// flow measures a declared flow, from the creation of the copy to its last message.
func (s *sitesOf) flow(ctx context.Context) (float64, error) {
	copied, err := s.withoutCopy(ctx)
	if err != nil {
		return 0, err
	}
	declared := s.pair.Network().At(target1, topology.Set{Service: subject.Plattform, Streams: []topology.Stream{copied}})
	began := time.Now()
	if err := topology.Ensure(ctx, s.to.JetStream(), declared); err != nil {
		return 0, err
	}
	return s.rate(began, s.await(ctx, copied.Name))
}

// source measures a source of the stream as a whole.
func (s *sitesOf) source(ctx context.Context) (float64, error) {
	copied, err := s.withoutCopy(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.plainCopy(ctx, copied.Name); err != nil {
		return 0, err
	}
	return s.rate(began, s.await(ctx, copied.Name))
}

func (s *sitesOf) rate(began time.Time, err error) (float64, error) {
	return float64(s.size) / time.Since(began).Seconds(), err
}

func (s *sitesOf) plainCopy(ctx context.Context, name string) error {
	_, err := s.to.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: name, Sources: []*jetstream.StreamSource{{
		Name: stream().Name, External: &jetstream.ExternalStream{APIPrefix: "$JS." + origin1 + ".API"},
	}}})
	return err
}

// consumed measures a declared flow to a handler that counts.
func (s *sitesOf) consumed(ctx context.Context) (float64, error) {
	copied, err := s.withoutCopy(ctx)
	if err != nil {
		return 0, err
	}
	js, declared := s.to.JetStream(), s.set(copied)
	if s.dead, err = s.deadLetters(ctx); err != nil {
		return 0, err
	}
	left := newCountdown(s.size)
	began := time.Now()
	if err := topology.Ensure(ctx, js, declared); err != nil {
		return 0, err
	}
	c, err := consumer.New(js, s.dead, consumer.Config{Consumer: declared.Consumers[0], Site: target1, Logger: silent()},
		consumer.On(counter, func(context.Context, envelope.Received[counted]) error {
			left.done()
			return nil
		}))
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	rate, err := s.rate(began, left.wait(ctx))
	cancel()
	return rate, errors.Join(err, <-ended)
}

// read measures a plain source to a loop of the client.
func (s *sitesOf) read(ctx context.Context) (float64, error) {
	copied, err := s.withoutCopy(ctx)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.plainCopy(ctx, copied.Name); err != nil {
		return 0, err
	}
	durable, err := s.to.JetStream().CreateConsumer(ctx, copied.Name, jetstream.ConsumerConfig{Durable: "reader", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 5_000})
	if err != nil {
		return 0, err
	}
	return s.rate(began, readAll(s.to, durable, 500, s.size))
}

// set is what the reading service declares at the destination.
func (s *sitesOf) set(copied topology.Stream) topology.Set {
	declared := reader(inFlight)
	declared.Stream = copied
	limits := topology.Limits{MaxBytes: 1 << 30}
	return s.pair.Network().At(target1, topology.Set{
		Service: subject.Plattform,
		Streams: []topology.Stream{
			copied, topology.DeadLetters(subject.Plattform, limits), topology.DeadLetterOps(subject.Plattform, limits),
		},
		Consumers: []topology.Consumer{declared},
	})
}

// withoutCopy deletes the copy of the round before, and returns its declaration.
func (s *sitesOf) withoutCopy(ctx context.Context) (topology.Stream, error) {
	n := s.pair.Network()
	copied := n.StreamOf(n.Flows[0])
	err := s.to.JetStream().DeleteStream(ctx, copied.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = nil
	}
	return copied, err
}

// deadLetters opens the queue of the consumer, whose streams it creates.
func (s *sitesOf) deadLetters(ctx context.Context) (*dlq.Queue, error) {
	limits := topology.Limits{MaxBytes: 1 << 30}
	err := topology.Ensure(ctx, s.to.JetStream(), topology.Set{Service: subject.Plattform, Streams: []topology.Stream{
		topology.DeadLetters(subject.Plattform, limits), topology.DeadLetterOps(subject.Plattform, limits),
	}})
	if err != nil {
		return nil, err
	}
	return dlq.Open(ctx, s.to.JetStream(), subject.Plattform, dlq.Config{Logger: silent()})
}

// await returns when a stream at the destination holds the backlog.
func (s *sitesOf) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("the messages did not arrive within 10 minutes"))
	defer cancel()
	for {
		held, err := s.to.JetStream().Stream(ctx, name)
		if err != nil {
			return err
		}
		if held.CachedInfo().State.Msgs >= uint64(s.size) {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}
