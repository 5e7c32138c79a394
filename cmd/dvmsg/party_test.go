package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dlq"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/inbox"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

type nodeV1 struct {
	Host string `json:"host"`
}

var (
	registered = envelope.MustEvent[nodeV1](envelope.EventSpec{Service: subject.Plattform, Entity: "node", Verb: "registered", Version: 1})
	connect    = envelope.MustCommand[nodeV1](envelope.CommandSpec{Service: subject.Nett, Entity: "link", Action: "connect", Version: 1})
)

// party is a service at a site: its processes, its database, and its operator.
type party struct {
	environment
	set   topology.Set
	conn  *natsconn.Conn
	pool  *pgxpool.Pool
	file  string
	bad   atomic.Value // func(host string) bool: what its handler gives up
	stop  func()
	quiet bool // its handlers say nothing
}

// newParty makes the service's streams and its tables; start runs it.
func newParty(t *testing.T, conn *natsconn.Conn, url string, set topology.Set, pool *pgxpool.Pool) *party {
	t.Helper()
	p := &party{set: set, conn: conn, file: writeSet(t, set), stop: func() {}}
	p.environment = environment{envNATS: url, envOperator: "operator:ola"}
	p.bad.Store(func(string) bool { return false })
	require.NoError(t, topology.Ensure(t.Context(), conn.JetStream(), set))
	p.use(t, pool)
	p.exec(t, `create table if not exists node (host text not null)`)
	return p
}

// use gives the service a database.
func (p *party) use(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	p.pool = pool
	p.environment[envDatabase] = databaseURL(pool)
}

func (p *party) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := p.pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// start runs a relay and a consumer for each durable.
func (p *party) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, err := outbox.New(p.set, outbox.Config{})
	require.NoError(t, err)
	relay, err := outbox.NewRelay(out, p.pool, p.conn.JetStream(), outbox.RelayConfig{
		Logger: quiet(), LeaseTTL: time.Second, Site: p.set.Site, ProbeInterval: time.Second,
	})
	require.NoError(t, err)
	runs := []func(context.Context) error{relay.Run}
	if len(p.set.Consumers) > 0 {
		runs = append(runs, p.consumers(t, out)...)
	}
	ended := make(chan error, len(runs))
	for _, run := range runs {
		go func() { ended <- run(ctx) }()
	}
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range runs {
			require.NoError(t, <-ended)
		}
	}
	t.Cleanup(p.stop)
}

func (p *party) consumers(t *testing.T, out *outbox.Outbox) (runs []func(context.Context) error) {
	t.Helper()
	letters, err := dlq.Open(t.Context(), p.conn.JetStream(), p.set.Service, dlq.Config{Logger: quiet()})
	require.NoError(t, err)
	in, err := inbox.New(p.pool, "plattform__servers", inbox.Config{})
	require.NoError(t, err)
	for _, durable := range p.set.Consumers {
		c, err := consumer.New(p.conn.JetStream(), letters, consumer.Config{
			Consumer: durable, Store: in, Site: p.set.Site, Logger: quiet(),
		}, inbox.On(in, provisioned, p.handle(out)))
		require.NoError(t, err)
		runs = append(runs, c.Run)
	}
	return runs
}

// handle registers the host, and says so.
func (p *party) handle(out *outbox.Outbox) func(context.Context, pgx.Tx, envelope.Received[serverV1]) error {
	return func(ctx context.Context, tx pgx.Tx, m envelope.Received[serverV1]) error {
		host := m.Data.Hostname
		if p.bad.Load().(func(string) bool)(host) {
			return envelope.Permanent(errors.New("this host is not known"))
		}
		if _, err := tx.Exec(ctx, `insert into node (host) values ($1)`, host); err != nil || p.quiet {
			return err
		}
		return out.Enqueue(ctx, tx, registered.New(host, nodeV1{host}))
	}
}

// say commits drafts as a request does.
func (p *party) say(t *testing.T, drafts ...envelope.Draft) {
	t.Helper()
	out, err := outbox.New(p.set, outbox.Config{})
	require.NoError(t, err)
	require.NoError(t, pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
		return out.Enqueue(fromEdge(t.Context()), tx, drafts...)
	}))
}

// provision says that servers are there.
func (p *party) provision(t *testing.T, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		p.say(t, provisioned.New(host, serverV1{host}))
	}
}

// hosts counts what the handlers of a service did.
func (p *party) hosts(t *testing.T) map[string]int {
	t.Helper()
	rows, err := p.pool.Query(t.Context(), `select host from node`)
	require.NoError(t, err)
	hosts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	counts := map[string]int{}
	for _, host := range hosts {
		counts[host]++
	}
	return counts
}

// requireHosts waits until the handlers have registered these hosts, and checks that
// each is there once, and nothing else.
func (p *party) requireHosts(t *testing.T, hosts ...[]string) {
	t.Helper()
	want := map[string]int{}
	for _, some := range hosts {
		for _, host := range some {
			want[host] = 1
		}
	}
	require.Eventually(t, func() bool { return len(p.hosts(t)) >= len(want) }, soon, tick, "not all of %v are there", want)
	require.Equal(t, want, p.hosts(t))
}

// requireIdle waits until the durables of the service have nothing left, and checks
// once more what was done: whatever came again had no effect.
func (p *party) requireIdle(t *testing.T) {
	t.Helper()
	for _, d := range p.set.Consumers {
		require.Eventually(t, func() bool {
			c, err := p.conn.JetStream().Consumer(t.Context(), d.Stream.Name, d.Durable)
			return err == nil && c.CachedInfo().NumPending == 0 && c.CachedInfo().NumAckPending == 0
		}, soon, tick, d.Durable)
	}
}

// letters returns the hosts of the letters in a state.
func (p *party) letters(t *testing.T, state dlq.State) map[string]string {
	t.Helper()
	queue, err := dlq.Open(t.Context(), p.conn.JetStream(), p.set.Service, dlq.Config{Logger: quiet()})
	require.NoError(t, err)
	hosts := map[string]string{}
	for l, err := range queue.List(t.Context(), dlq.Filter{State: state}) {
		require.NoError(t, err)
		hosts[l.Resource] = l.ID
	}
	return hosts
}

func (p *party) requireLetters(t *testing.T, state dlq.State, hosts ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(p.letters(t, state)) >= len(hosts) }, soon, tick)
	found := []string{}
	for host := range p.letters(t, state) {
		found = append(found, host)
	}
	require.ElementsMatch(t, hosts, found)
}

// requirePublished waits until nothing waits in the outbox.
func (p *party) requirePublished(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := outbox.ReadStatus(t.Context(), p.pool, "")
		require.NoError(t, err)
		for _, stream := range s.Streams {
			if stream.Unpublished > 0 || stream.Recreated || stream.Foreign {
				return false
			}
		}
		return true
	}, soon, tick)
}

// stored returns the envelopes in a stream.
func (p *party) stored(t *testing.T, stream string) (all []*envelope.Envelope) {
	t.Helper()
	s, err := p.conn.JetStream().Stream(t.Context(), stream)
	require.NoError(t, err)
	state := s.CachedInfo().State
	for sequence := state.FirstSeq; sequence <= state.LastSeq && state.Msgs > 0; sequence++ {
		raw, err := s.GetMsg(t.Context(), sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		require.NoError(t, err)
		e, err := envelope.Decode(raw.Data)
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

func hostOf(t *testing.T, e *envelope.Envelope) string {
	t.Helper()
	var node nodeV1
	require.NoError(t, json.Unmarshal(e.Data, &node))
	return node.Host
}

// is returns a handler's opinion of which hosts are bad.
func is(bad ...string) func(string) bool {
	return func(host string) bool {
		for _, prefix := range bad {
			if strings.HasPrefix(host, prefix) {
				return true
			}
		}
		return false
	}
}

func numbered(prefix string, n int) (hosts []string) {
	for i := range n {
		hosts = append(hosts, prefix+string(rune('a'+i)))
	}
	return hosts
}

// twoSites are maskin and plattform at two sites, with the events of maskin both
// ways, and commands that wait for nett at the first one.
type twoSites struct {
	*dvtest.TwoSites
	maskin, plattform map[string]*party
	nett              *party
}

func setupSites(t *testing.T) twoSites {
	t.Helper()
	flow := func(from, to string) topology.Flow {
		return topology.Flow{From: from, To: to, Cargo: topology.CargoEvents, Service: subject.Maskin, Limits: limits}
	}
	s := twoSites{dvtest.Sites(t, flow(dvtest.SiteA, dvtest.SiteB), flow(dvtest.SiteB, dvtest.SiteA)), map[string]*party{}, map[string]*party{}, nil}
	commands := topology.Commands(subject.Nett, limits)
	for _, site := range []*dvtest.Site{s.A(), s.B()} {
		conn, url := site.Connect(t), site.URL()
		at := func(set topology.Set) *party {
			return newParty(t, conn, url, s.Network().At(site.Name(), set), dvtest.Postgres(t))
		}
		nett := at(topology.Set{Service: subject.Nett, Streams: []topology.Stream{commands}})
		if site == s.A() {
			s.nett = nett
		}
		s.maskin[site.Name()] = at(topology.Set{Service: subject.Maskin, Streams: []topology.Stream{maskinEvents, commands}})
		other := map[string]topology.Flow{dvtest.SiteA: s.Network().Flows[1], dvtest.SiteB: s.Network().Flows[0]}[site.Name()]
		copied := servers
		copied.Durable, copied.Stream = "plattform__from_maskin__afar", s.Network().StreamOf(other)
		s.plattform[site.Name()] = at(topology.Set{
			Service: subject.Plattform, Consumers: []topology.Consumer{servers, copied},
			Streams: []topology.Stream{
				maskinEvents, copied.Stream, topology.DeadLetters(subject.Plattform, limits), topology.DeadLetterOps(subject.Plattform, limits),
				topology.Events(subject.Plattform, limits),
			},
		})
	}
	s.AwaitFlows(t)
	return s
}
