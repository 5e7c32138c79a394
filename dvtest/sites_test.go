package dvtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/natsconn"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

const (
	copyAtB = "DV_MASKIN_EVT_FROM_DC1"
	copyAtA = "DV_MASKIN_EVT_FROM_DC2"
)

func bothWays() []topology.Flow {
	return []topology.Flow{
		{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Maskin},
		{From: dvtest.SiteB, To: dvtest.SiteA, Cargo: topology.CargoEvents, Service: subject.Maskin},
	}
}

// end is one site as a test uses it.
type end struct {
	site *dvtest.Site
	conn *natsconn.Conn
	sent int
}

// ends are two sites of one service, with flows both ways.
func ends(t *testing.T, s *dvtest.TwoSites, replicas int) (a, b *end) {
	t.Helper()
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{
		topology.Events(subject.Maskin, topology.Limits{Replicas: replicas}),
	}}
	a, b = &end{site: s.A(), conn: s.A().Connect(t)}, &end{site: s.B(), conn: s.B().Connect(t)}
	for _, e := range []*end{a, b} {
		e.site.Ensure(t, e.conn, set)
	}
	return a, b
}

// publish stores n numbered events at the site.
func (e *end) publish(t *testing.T, n int) {
	t.Helper()
	for range n {
		e.sent++
		msg := nats.NewMsg("dv.maskin.evt.server.provisioned")
		msg.Data = fmt.Appendf(nil, "%s %d", e.site.Name(), e.sent)
		var ack *jetstream.PubAck
		require.Eventually(t, func() bool {
			var err error
			ack, err = e.conn.JetStream().PublishMsg(t.Context(), msg, jetstream.WithMsgID(string(msg.Data)), jetstream.WithExpectStream("DV_MASKIN_EVT"))
			return err == nil
		}, soon, 10*time.Millisecond)
		require.Equal(t, e.site.Name(), ack.Domain, "the other site stored it")
	}
}

const soon = 20 * time.Second

// requireHolds waits until a stream of the site holds what the other one sent,
// each once and in order, and nothing else.
func (e *end) requireHolds(t *testing.T, stream string, from *end) {
	t.Helper()
	js := e.conn.JetStream()
	require.Eventually(t, func() bool {
		s, err := js.Stream(t.Context(), stream)
		return err == nil && s.CachedInfo().State.Msgs >= uint64(from.sent)
	}, soon, 10*time.Millisecond, "%s lacks events", stream)
	s, err := js.Stream(t.Context(), stream)
	require.NoError(t, err)
	require.EqualValues(t, from.sent, s.CachedInfo().State.Msgs, "%s holds more than was sent", stream)
	first := s.CachedInfo().State.FirstSeq
	for i := range from.sent {
		m, err := s.GetMsg(t.Context(), first+uint64(i))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%s %d", from.site.Name(), i+1), string(m.Data))
		require.Equal(t, "dv.maskin.evt.server.provisioned", m.Subject)
	}
}

// requireBoth waits until each site holds its own events and a copy of the
// other's.
func requireBoth(t *testing.T, a, b *end) {
	t.Helper()
	a.requireHolds(t, "DV_MASKIN_EVT", a)
	b.requireHolds(t, "DV_MASKIN_EVT", b)
	b.requireHolds(t, copyAtB, a)
	a.requireHolds(t, copyAtA, b)
}

func TestEventsFlowBothWaysAndNowhereElse(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s := dvtest.Sites(t, bothWays()...)
	t.Logf("sites in %s", time.Since(began))
	a, b := ends(t, s, 1)
	t.Logf("with streams in %s", time.Since(began))
	a.publish(t, 50)
	b.publish(t, 70)
	requireBoth(t, a, b)
	require.NotZero(t, s.Passed(), "the sites have another way")
}

func TestBothSitesGoOnWhileTheLinkIsCutAndTheCopyCatchesUp(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, bothWays()...)
	a, b := ends(t, s, 1)
	a.publish(t, 20)
	b.publish(t, 20)
	requireBoth(t, a, b)
	s.Cut()
	a.publish(t, 100)
	b.publish(t, 100)
	a.requireHolds(t, "DV_MASKIN_EVT", a)
	b.requireHolds(t, "DV_MASKIN_EVT", b)
	s.Heal()
	s.AwaitLink(t)
	requireBoth(t, a, b)
}

func TestNothingIsLostInABlackHole(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, bothWays()...)
	a, b := ends(t, s, 1)
	a.publish(t, 20)
	b.publish(t, 20)
	requireBoth(t, a, b)
	s.BlackHole()
	passed := s.Passed()
	a.publish(t, 100)
	b.publish(t, 100)
	require.Equal(t, passed, s.Passed(), "the hole leaks")
	s.Heal()
	requireBoth(t, a, b)
}

func TestNothingIsLostOverAFlappingLink(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, bothWays()...)
	a, b := ends(t, s, 1)
	flapped := make(chan struct{})
	go func() {
		defer close(flapped)
		s.Flap(t, 5, 300*time.Millisecond)
	}()
	for done := false; !done; {
		a.publish(t, 5)
		b.publish(t, 5)
		select {
		case <-flapped:
			done = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.AwaitLink(t)
	requireBoth(t, a, b)
}

func TestASlowLinkDelaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, bothWays()...)
	a, b := ends(t, s, 1)
	s.Latency(200 * time.Millisecond)
	a.publish(t, 200)
	b.publish(t, 200)
	requireBoth(t, a, b)
}

func TestEachSiteMayRestart(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, bothWays()...)
	a, b := ends(t, s, 1)
	a.publish(t, 20)
	b.publish(t, 20)
	for _, restarted := range []*end{a, b} {
		restarted.site.Stop()
		other := map[*end]*end{a: b, b: a}[restarted]
		other.publish(t, 30)
		restarted.site.Restart(t)
		restarted.publish(t, 30)
		s.AwaitLink(t)
	}
	requireBoth(t, a, b)
}

func TestClusteredSitesCatchUpOverALeaderChange(t *testing.T) {
	t.Parallel()
	flows := bothWays()
	for i := range flows {
		flows[i].Limits.Replicas = 3
	}
	began := time.Now()
	s := dvtest.ClusteredSites(t, flows...)
	t.Logf("sites in %s", time.Since(began))
	a, b := ends(t, s, 3)
	a.publish(t, 20)
	b.publish(t, 20)
	s.Cut()
	a.publish(t, 50)
	b.publish(t, 50)
	s.Heal()
	b.site.StepDownStream(t, copyAtB)
	a.site.StepDownStream(t, "DV_MASKIN_EVT")
	s.AwaitLink(t)
	requireBoth(t, a, b)
}
