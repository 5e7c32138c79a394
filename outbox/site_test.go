package outbox_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/topology"
)

// atSite is maskin's declaration at one of two sites.
func atSite(domain string) topology.Set {
	return topology.Network{Sites: []topology.Site{
		{Name: dvtest.SiteA, Domain: domain, Accepts: []string{"a:7422"}}, {Name: dvtest.SiteB, Domain: dvtest.SiteB},
	}}.At(dvtest.SiteA, maskinSet)
}

func TestTheRelayTakesSiteAndDomainFromTheNetwork(t *testing.T) {
	t.Parallel()
	sites := dvtest.Sites(t)
	b := bundle{pool: dvtest.Postgres(t), js: sites.A().Connect(t).JetStream()}
	createStreams(t, b.js)
	var err error
	b.out, err = outbox.New(atSite(dvtest.SiteA), outbox.Config{})
	require.NoError(t, err)
	b.relay(t, outbox.RelayConfig{})
	b.enqueue(t, "a", 1)
	b.requireStored(t, "DV_MASKIN_EVT", 1)
	stream, err := b.js.Stream(t.Context(), "DV_MASKIN_EVT")
	require.NoError(t, err)
	m, err := stream.GetMsg(t.Context(), 1)
	require.NoError(t, err)
	require.Equal(t, []string{dvtest.SiteA}, m.Header[envelope.HeaderSite])
}

// A relay that runs at another site than it was told to would stamp messages
// with a site that did not store them.
func TestTheRelayPublishesNothingAtAnotherSite(t *testing.T) {
	t.Parallel()
	sites := dvtest.Sites(t)
	b := bundle{pool: dvtest.Postgres(t), js: sites.B().Connect(t).JetStream()}
	createStreams(t, b.js)
	var err error
	b.out, err = outbox.New(atSite(dvtest.SiteA), outbox.Config{})
	require.NoError(t, err)
	r := b.newRelay(t, outbox.RelayConfig{})
	run(t, r)
	b.enqueue(t, "a", 1)
	requireNotReady(t, r, dvtest.SiteA)
	require.Positive(t, unpublished(t, b))
	b.requireStored(t, "DV_MASKIN_EVT", 0)
}

func TestARelayThatContradictsTheNetworkIsRefused(t *testing.T) {
	t.Parallel()
	out, err := outbox.New(atSite("oslo"), outbox.Config{})
	require.NoError(t, err)
	_, err = outbox.NewRelay(out, nil, nil, outbox.RelayConfig{Site: dvtest.SiteB, Domain: dvtest.SiteB})
	require.ErrorContains(t, err, "RelayConfig.Site")
	require.ErrorContains(t, err, "RelayConfig.Domain")
}
