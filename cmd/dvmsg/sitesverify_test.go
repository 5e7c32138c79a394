package main

import (
	"context"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/sites"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestSitesVerifyFindsWhatIsMissingAndChangesNothingWithoutRepair(t *testing.T) {
	t.Parallel()
	s := dvtest.Sites(t, topology.Flow{From: dvtest.SiteA, To: dvtest.SiteB, Cargo: topology.CargoEvents, Service: subject.Maskin})
	a, b := s.A().Connect(t), s.B().Connect(t)
	set := topology.Set{Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{})}}
	setA := s.A().Ensure(t, a, set)
	file := writeSet(t, s.B().Ensure(t, b, set))
	verify := func(args ...string) result {
		return environment{envNATS: s.B().URL()}.dvmsg(t, append([]string{"sites", "verify", "--file", file}, args...)...)
	}
	store := func(n int) {
		for range n {
			require.Eventually(t, func() bool {
				_, err := a.JetStream().PublishMsg(t.Context(), nats.NewMsg("dv.maskin.evt.server.provisioned"),
					jetstream.WithMsgID(uuid.Must(uuid.NewV7()).String()), jetstream.WithExpectStream("DV_MASKIN_EVT"))
				return err == nil
			}, 20*time.Second, 10*time.Millisecond)
		}
	}
	copied := func(n uint64) {
		require.Eventually(t, func() bool {
			c, err := b.JetStream().Stream(t.Context(), "DV_MASKIN_EVT_FROM_DC1")
			return err == nil && c.CachedInfo().State.Msgs == n
		}, 20*time.Second, 10*time.Millisecond)
	}
	before := s.A().Snapshot(t)
	s.AwaitFlows(t)
	store(5)
	copied(5)
	s.A().RollBack(t, before)
	s.AwaitFlows(t)
	store(3) // on sequences that the copy has seen

	r := verify()
	r.failed(t, exitFound, "not compared")
	require.Contains(t, r.out, "no watcher of the stream's owner runs there")
	w, err := sites.New(a, setA, sites.Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })

	require.Eventually(t, func() bool { r = verify(); return regexp.MustCompile(`3 messages are missing`).MatchString(r.err) }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, exitFound, r.code)
	requireGolden(t, "sites-verify.golden", r.out)
	copied(5)
	verify("--repair").failed(t, exitFound, "3 messages were missing")
	copied(8)
	found := decode[sitesVerifyResult](t, verify("--json", "--since", "30m").ok(t))
	require.Len(t, found.Flows, 1)
	require.True(t, found.Flows[0].Complete)
	require.Zero(t, found.Flows[0].Missing)
	require.EqualValues(t, 5, found.Flows[0].OriginLacks, "what the origin lost is told")
	verify("--since", "1m").failed(t, exitUsage, "--since: 1m0s is out of range")
}
