package dvtest_test

import (
	"errors"
	"fmt"
	"strings"
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

// flowing are two sites with flows both ways, ready for events.
func flowing(t *testing.T) (s *dvtest.TwoSites, a, b *end) {
	t.Helper()
	s = dvtest.Sites(t, bothWays()...)
	a, b = ends(t, s, 1)
	return s, a, b
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

// publishBoth stores n more events at each site.
func publishBoth(t *testing.T, n int, a, b *end) {
	t.Helper()
	a.publish(t, n)
	b.publish(t, n)
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
	s, a, b := flowing(t)
	publishBoth(t, 20, a, b)
	requireBoth(t, a, b)
	s.Cut()
	publishBoth(t, 100, a, b)
	a.requireHolds(t, "DV_MASKIN_EVT", a)
	b.requireHolds(t, "DV_MASKIN_EVT", b)
	s.Heal()
	s.AwaitFlows(t)
	requireBoth(t, a, b)
}

func TestNothingIsLostInABlackHole(t *testing.T) {
	t.Parallel()
	s, a, b := flowing(t)
	publishBoth(t, 20, a, b)
	requireBoth(t, a, b)
	s.BlackHole()
	passed := s.Passed()
	publishBoth(t, 100, a, b)
	require.Equal(t, passed, s.Passed(), "the hole leaks")
	s.Heal()
	requireBoth(t, a, b)
}

func TestNothingIsLostOverAFlappingLink(t *testing.T) {
	t.Parallel()
	s, a, b := flowing(t)
	flapped := make(chan struct{})
	go func() {
		defer close(flapped)
		s.Flap(t, 5, 300*time.Millisecond)
	}()
	for done := false; !done; {
		publishBoth(t, 5, a, b)
		select {
		case <-flapped:
			done = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.AwaitFlows(t)
	requireBoth(t, a, b)
}

func TestASlowLinkDelaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	s, a, b := flowing(t)
	s.Latency(200 * time.Millisecond)
	publishBoth(t, 200, a, b)
	requireBoth(t, a, b)
}

func TestEachSiteMayRestart(t *testing.T) {
	t.Parallel()
	s, a, b := flowing(t)
	publishBoth(t, 20, a, b)
	for _, restarted := range []*end{a, b} {
		restarted.site.Stop()
		other := map[*end]*end{a: b, b: a}[restarted]
		other.publish(t, 30)
		restarted.site.Restart(t)
		restarted.publish(t, 30)
		s.AwaitFlows(t)
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
	publishBoth(t, 20, a, b)
	s.Cut()
	publishBoth(t, 50, a, b)
	s.Heal()
	b.site.StepDownStream(t, copyAtB)
	a.site.StepDownStream(t, "DV_MASKIN_EVT")
	s.AwaitFlows(t)
	requireBoth(t, a, b)
}

// The rights of the link let a command for the other site through, on the subject
// of a local one, and nothing past the flows.
func TestCommandsToTheOtherSiteArriveBesideTheLocalOnes(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, topology.Flow{
		From: dvtest.SiteB, To: dvtest.SiteA, Cargo: topology.CargoCommands, Service: subject.Maskin, Owner: subject.Sentral,
	})
	a, b := s.A().Connect(t), s.B().Connect(t)
	s.B().Ensure(t, b, topology.Set{Service: subject.Sentral})
	s.A().Ensure(t, a, topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Commands(subject.Maskin, topology.Limits{})}})
	publish := func(conn *natsconn.Conn, on, stream, domain string) {
		ack, err := conn.JetStream().Publish(t.Context(), on, nil, jetstream.WithExpectStream(stream))
		require.NoError(t, err)
		require.Equal(t, domain, ack.Domain)
	}
	publish(b, "dv.xdc.dc1.maskin.cmd.resize", "DV_MASKIN_CMD_TO_DC1", dvtest.SiteB)
	publish(a, "dv.maskin.cmd.provision", "DV_MASKIN_CMD", dvtest.SiteA)
	stream, err := a.JetStream().Stream(t.Context(), "DV_MASKIN_CMD")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("dv.maskin.cmd.>"))
		return err == nil && info.State.Subjects["dv.maskin.cmd.resize"] == 1 && info.State.Subjects["dv.maskin.cmd.provision"] == 1
	}, soon, 10*time.Millisecond)

	// Nothing else passes: no publish, no request, no other stream's API.
	for _, past := range []struct {
		conn *natsconn.Conn
		on   string
	}{
		{b, "dv.maskin.cmd.provision"}, {a, "dv.xdc.dc1.maskin.cmd.resize"}, {a, "dv.rpc.sentral.ask"},
		{b, "$JS.dc1.API.STREAM.INFO.DV_MASKIN_CMD"}, {a, "$JS.dc2.API.STREAM.INFO.DV_MASKIN_CMD_TO_DC1"},
		{a, "$JS.dc2.API.STREAM.DELETE.DV_MASKIN_CMD_TO_DC1"},
	} {
		_, err := past.conn.NATS().Request(past.on, nil, 5*time.Second)
		require.ErrorIs(t, err, nats.ErrNoResponders, past.on)
	}
	client, err := nats.Connect(strings.Replace(s.A().URL(), "dv:dv", "leaf_dc2:dv", 1))
	require.ErrorIs(t, err, nats.ErrAuthorization, "the user of the link is for leafnodes")
	require.Nil(t, client)
}

// Without the right to flow control a flow stands still after about 2 MB: with
// the rights that are written it does not, in either direction.
func TestAFlowOfManyMegabytesDoesNotStandStill(t *testing.T) {
	t.Parallel()
	_, a, b := flowing(t)
	const messages, bytes = 6000, 1000
	for _, e := range []*end{a, b} {
		// Published without waiting: what the stream holds is what counts.
		for range messages {
			require.NoError(t, e.conn.NATS().Publish("dv.maskin.evt.server.provisioned", make([]byte, bytes)))
		}
	}
	for e, stream := range map[*end]string{a: copyAtA, b: copyAtB} {
		require.Eventually(t, func() bool {
			held, err := e.conn.JetStream().Stream(t.Context(), stream)
			return err == nil && held.CachedInfo().State.Msgs == messages
		}, soon, 20*time.Millisecond, stream)
	}
}

// After a cut that lost the server's question, Resume makes it ask again at once.
func TestResumeIsHarmlessWhereNothingIsWrong(t *testing.T) {
	t.Parallel()
	s, a, b := flowing(t)
	a.publish(t, 30)
	b.requireHolds(t, copyAtB, a)
	there := s.Network().StreamOf(bothWays()[0])
	require.NoError(t, topology.Resume(t.Context(), b.conn.JetStream(), there))
	a.publish(t, 30)
	b.requireHolds(t, copyAtB, a)
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})}}
	here := s.Network().At(dvtest.SiteB, set)
	require.NoError(t, topology.Verify(t.Context(), b.conn.JetStream(), here), "the stream is as declared again")
	changes, err := topology.Plan(t.Context(), b.conn.JetStream(), here)
	require.NoError(t, err)
	require.Empty(t, changes)
}

// While a release is rolled out, a watcher of the older one has the older declaration
// and may make the copy ask again: what the newer one declared stays, or events of
// the entity that it added would be passed over in silence.
func TestResumeWithAnOlderDeclarationTakesNothingAway(t *testing.T) {
	t.Parallel()
	flow := bothWays()[0]
	flow.Entities = []string{"rack", "server"}
	s := dvtest.Sites(t, flow)
	a, b := ends(t, s, 1)
	flow.Entities = []string{"rack"}
	older := s.Network().StreamOf(flow)
	require.NoError(t, topology.Resume(t.Context(), b.conn.JetStream(), older))
	a.publish(t, 5)
	b.requireHolds(t, copyAtB, a)

	// A stream that has lost its sources has nothing to keep.
	declared := s.Network().StreamOf(s.Network().Flows[0])
	cfg := declared.Config()
	cfg.Sources, cfg.Subjects = nil, []string{"$DV." + cfg.Name}
	_, err := b.conn.JetStream().UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	a.publish(t, 5)
	require.NoError(t, topology.Resume(t.Context(), b.conn.JetStream(), declared))
	b.requireHolds(t, copyAtB, a)
}

// A copy whose sources somebody removed, or changed, is found and put right.
func TestVerifyFindsASourceThatIsNotAsDeclaredAndApplyPutsItRight(t *testing.T) {
	t.Parallel()
	s, a, b := flowing(t)
	js := b.conn.JetStream()
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})}}
	here := s.Network().At(dvtest.SiteB, set)
	cfg := here.Streams[1].Config()
	cfg.Sources[0].SubjectTransforms = cfg.Sources[0].SubjectTransforms[:0]
	_, err := js.UpdateStream(t.Context(), cfg)
	require.NoError(t, err)
	drift, ok := errors.AsType[*topology.DriftError](topology.Verify(t.Context(), js, here))
	require.True(t, ok)
	require.Equal(t, "sources", drift.Field)
	_, err = topology.Apply(t.Context(), js, here, topology.ApplyOptions{Destructive: true})
	require.NoError(t, err)
	require.NoError(t, topology.Verify(t.Context(), js, here))
	a.publish(t, 10)
	b.requireHolds(t, copyAtB, a)
}
