package consumer_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// whence remembers where handled messages came from.
type whence struct {
	mu   sync.Mutex
	seen []string
}

func (w *whence) route() envelope.Route {
	return handle(func(_ context.Context, m received) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, fmt.Sprintf("%s %s remote=%t", m.Data.Hostname, m.Site, m.Remote))
		return nil
	})
}

func (w *whence) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// from is an event that says that a site published it; "" says nothing.
func from(t *testing.T, name, site string) *nats.Msg {
	t.Helper()
	m := message(t, name)
	if site != "" {
		m.Header.Set(envelope.HeaderSite, site)
	}
	return m
}

// Where a message comes from is what the servers say; a header that says
// something else is a message that leaked over the link, or lies.
//
// A row of docs/DELIVERY.md.
func TestHandlersKnowLocalFromRemoteAndAContradictionIsASecurityMatter(t *testing.T) {
	t.Parallel()
	flow := topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Maskin}
	s := dvtest.Sites(t, flow)
	here := setupOn(t, s.A().Connect(t).JetStream())
	there := setupOn(t, s.B().Connect(t).JetStream(), func(c *topology.Consumer) { c.Stream = s.Network().StreamOf(flow) })
	local, remote := &whence{}, &whence{}
	here.run(t, here.config(func(c *consumer.Config) { c.Site = dvtest.SiteA }), local.route())
	there.run(t, there.config(func(c *consumer.Config) { c.Site = dvtest.SiteB }), remote.route())

	here.send(t, from(t, "named", dvtest.SiteA))
	here.send(t, from(t, "unnamed", ""))
	here.send(t, from(t, "stray", dvtest.SiteB)) // published at the wrong site

	for site, b := range map[string]*bundle{"local": here, "remote": there} {
		letter := b.graves.await(t, 1)[0]
		require.Equal(t, envelope.ClassSecurity, letter.Class, site)
		require.ErrorContains(t, letter.Err, "Dv-Site", site)
		require.ErrorContains(t, letter.Err, "hold the servers of both sites against dvmsg topology server-config --check", site)
	}
	require.Eventually(t, func() bool { return len(local.all()) == 2 && len(remote.all()) == 2 }, soon, tick)
	require.ElementsMatch(t, []string{"named dc1 remote=false", "unnamed dc1 remote=false"}, local.all())
	require.ElementsMatch(t, []string{"named dc1 remote=true", "unnamed dc1 remote=true"}, remote.all())
}

// A consumer of one site that was told nothing takes every site's messages for
// its own, as it did before there were sites.
func TestWithoutSitesTheHeaderIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	b, seen := setup(t), &whence{}
	b.run(t, b.config(), seen.route())
	b.send(t, from(t, "named", "dc7"))
	b.send(t, from(t, "unnamed", ""))
	require.Eventually(t, func() bool { return len(seen.all()) == 2 }, soon, tick)
	require.ElementsMatch(t, []string{"named dc7 remote=false", "unnamed  remote=false"}, seen.all())
}
