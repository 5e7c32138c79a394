package topology_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

func TestEnsureCreatesOwnStreamsDurablesAndReplayDurables(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	set := plattform()
	require.NoError(t, topology.Ensure(t.Context(), js, set))
	require.NoError(t, topology.Verify(t.Context(), js, set))
	require.ElementsMatch(t, []string{
		"DV_PLATTFORM_CMD", "DV_PLATTFORM_EVT", "DV_PLATTFORM_DLQ", "DV_PLATTFORM_DLQOPS", "DV_MASKIN_EVT",
	}, streamNames(t, js))
	for stream, durables := range map[string][]string{
		"DV_PLATTFORM_CMD":    {"plattform__commands"},
		"DV_MASKIN_EVT":       {"plattform__from_maskin"},
		"DV_PLATTFORM_DLQOPS": {"plattform__commands__replay", "plattform__from_maskin__replay"},
	} {
		for _, durable := range durables {
			c, err := js.Consumer(t.Context(), stream, durable)
			require.NoError(t, err)
			cfg := c.CachedInfo().Config
			require.Equal(t, -1, cfg.MaxDeliver)
			require.Equal(t, jetstream.AckExplicitPolicy, cfg.AckPolicy)
		}
	}
	c, err := js.Consumer(t.Context(), "DV_PLATTFORM_DLQOPS", "plattform__from_maskin__replay")
	require.NoError(t, err)
	require.Equal(t, "dv.plattform.replay.plattform__from_maskin", c.CachedInfo().Config.FilterSubject)
	require.Equal(t, 16, c.CachedInfo().Config.MaxAckPending, "as its durable")
}

func TestEnsureAgainChangesNothing(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	before := config(t, js, "DV_PLATTFORM_CMD")
	require.NoError(t, topology.Ensure(t.Context(), js, plattform()))
	require.Equal(t, before, config(t, js, "DV_PLATTFORM_CMD"))
}

// A service must not create the stream of another: it would own its settings
// without knowing its load.
func TestEnsureNeverTouchesAForeignStream(t *testing.T) {
	t.Parallel()
	js := server(t)
	err := topology.Ensure(t.Context(), js, plattform())
	require.Equal(t, []string{"stream DV_MASKIN_EVT"}, missing(err), "%v", err)
	require.ErrorContains(t, err, "it belongs to maskin")
	require.NotContains(t, streamNames(t, js), "DV_MASKIN_EVT")
	// Two services that read each other could never start otherwise.
	require.Contains(t, streamNames(t, js), "DV_PLATTFORM_EVT")
	_, err = js.Consumer(t.Context(), "DV_PLATTFORM_CMD", "plattform__commands")
	require.NoError(t, err)

	require.NoError(t, topology.Ensure(t.Context(), js, maskin()))
	require.NoError(t, topology.Ensure(t.Context(), js, plattform()), "now it can")
}

func TestEnsureReportsForeignDriftAndLeavesIt(t *testing.T) {
	t.Parallel()
	other := maskin()
	other.Streams[0].MaxAge = 24 * time.Hour
	js := server(t, other)
	err := topology.Ensure(t.Context(), js, plattform())
	require.Equal(t, map[string]string{"max_age": "stream DV_MASKIN_EVT"}, drifted(err))
	require.Equal(t, 24*time.Hour, config(t, js, "DV_MASKIN_EVT").MaxAge)
	_, err = js.Consumer(t.Context(), "DV_MASKIN_EVT", "plattform__from_maskin")
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound, "nothing is built on a stream that is not as declared")
}

func TestEnsureReportsOwnDriftAndLeavesIt(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	set := plattform()
	set.Streams[1].MaxAge = 24 * time.Hour
	set.Consumers[1].AckWait = time.Minute
	err := topology.Ensure(t.Context(), js, set)
	require.Equal(t, topology.DefaultEventAge, config(t, js, "DV_PLATTFORM_EVT").MaxAge)
	fields := drifted(err)
	require.Equal(t, "stream DV_PLATTFORM_EVT", fields["max_age"])
	require.Contains(t, fields["ack_wait"], "plattform__from_maskin")
}

// All replicas of a service start at the same moment after a deployment.
func TestEnsureByManyReplicasAtOnce(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	for _, err := range atOnce(8, func(int) error { return topology.Ensure(t.Context(), js, plattform()) }) {
		require.NoError(t, err)
	}
}

// Two releases with different declarations start at the same moment: at most
// one can win, and the other must say so instead of changing it back.
func TestEnsureByDisagreeingReplicas(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	declared := [2]time.Duration{24 * time.Hour, topology.DefaultEventAge}
	errs := atOnce(8, func(i int) error {
		set := plattform()
		set.Streams[1].MaxAge = declared[i%2]
		return topology.Ensure(t.Context(), js, set)
	})
	won := config(t, js, "DV_PLATTFORM_EVT").MaxAge
	for i, err := range errs {
		if declared[i%2] == won {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, map[string]string{"max_age": "stream DV_PLATTFORM_EVT"}, drifted(err))
	}
}

// The same with a durable. Who comes second between the other's look and create
// must see what is there, and not an error of the server about it.
func TestEnsureByReplicasThatDisagreeOnADurable(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	for round := range 20 {
		declared := plattform().Consumers[1]
		declared.Durable = fmt.Sprintf("plattform__from_maskin__%d", round)
		errs := atOnce(8, func(i int) error {
			c := declared
			c.MaxAckPending = 1 + i%2
			return topology.EnsureDurable(t.Context(), js, c)
		})
		c, err := js.Consumer(t.Context(), "DV_MASKIN_EVT", declared.Durable)
		require.NoError(t, err)
		for i, err := range errs {
			if 1+i%2 == c.CachedInfo().Config.MaxAckPending {
				require.NoError(t, err)
				continue
			}
			require.Contains(t, drifted(err), "max_ack_pending", "%v", err)
		}
	}
}

// atOnce runs fn n times in the same moment.
func atOnce(n int, fn func(i int) error) []error {
	var all sync.WaitGroup
	errs, gate := make([]error, n), make(chan struct{})
	for i := range errs {
		all.Go(func() {
			<-gate
			errs[i] = fn(i)
		})
	}
	close(gate)
	all.Wait()
	return errs
}

func TestEnsureCreatesADurableAtItsDeclaredStart(t *testing.T) {
	t.Parallel()
	js := server(t, maskin())
	publish := func(n int) {
		for range n {
			_, err := js.Publish(t.Context(), "dv.maskin.evt.server.provisioned", []byte("{}"))
			require.NoError(t, err)
		}
	}
	publish(3)
	set := plattform()
	set.Consumers = nil
	for durable, start := range map[string]topology.Start{
		"plattform__from_maskin__first": topology.StartFirst(),
		"plattform__from_maskin__new":   topology.StartNew(),
		"plattform__from_maskin__seq":   topology.StartAtSequence(2),
		"plattform__from_maskin__time":  topology.StartAtTime(time.Now().Add(-time.Hour)),
	} {
		set.Consumers = append(set.Consumers, topology.Consumer{
			Durable: durable, Stream: maskinEvents(), Filter: subject.EventsOf(subject.Maskin), Start: start,
		})
	}
	require.NoError(t, topology.Ensure(t.Context(), js, set))
	require.NoError(t, topology.Verify(t.Context(), js, set), "the start compares equal")
	publish(1)
	for durable, pending := range map[string]uint64{
		"plattform__from_maskin__first": 4, "plattform__from_maskin__new": 1, "plattform__from_maskin__seq": 3, "plattform__from_maskin__time": 4,
	} {
		c, err := js.Consumer(t.Context(), "DV_MASKIN_EVT", durable)
		require.NoError(t, err)
		require.Equal(t, pending, c.CachedInfo().NumPending, durable)
	}
}

// The stream of replays has no age: a replay durable that begins with the oldest
// would repeat every replay ever made.
func TestEnsureCreatesALostReplayDurableBehindWhatWasReplayed(t *testing.T) {
	t.Parallel()
	js := server(t, maskin(), plattform())
	c := plattform().Consumers[1]
	to := c.ReplayFilter().String()
	_, err := js.Publish(t.Context(), to, []byte("old"))
	require.NoError(t, err)
	require.NoError(t, js.DeleteConsumer(t.Context(), c.ReplayStream(), c.ReplayDurable()))
	require.NoError(t, topology.Ensure(t.Context(), js, plattform()))
	require.NoError(t, topology.Verify(t.Context(), js, plattform()))
	_, err = js.Publish(t.Context(), to, []byte("new"))
	require.NoError(t, err)
	replays, err := js.Consumer(t.Context(), c.ReplayStream(), c.ReplayDurable())
	require.NoError(t, err)
	m, err := replays.Next(jetstream.FetchMaxWait(10 * time.Second))
	require.NoError(t, err)
	require.Equal(t, "new", string(m.Data()))
}

// inProduction declares three replicas throughout.
func inProduction(set topology.Set) topology.Set {
	for i := range set.Streams {
		set.Streams[i].Replicas = 3
	}
	for i := range set.Consumers {
		set.Consumers[i].Stream.Replicas = 3
	}
	return set
}

// A cluster of which most nodes are down has no leader and answers nothing. A
// service that starts together with its cluster must wait for it instead of
// crashing, and must not wait for ever.
func TestEnsureWaitsForTheNodesOfACluster(t *testing.T) {
	t.Parallel()
	nodes := dvtest.Cluster(t).Nodes()
	for _, n := range nodes {
		n.Stop()
	}
	nodes[0].Restart(t)
	js := nodes[0].Connect(t).JetStream()

	err := topology.Ensure(short(t, 300*time.Millisecond), js, inProduction(maskin()))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "that JetStream has a leader", "and says what it waited for")

	started := make(chan error, 1)
	go func() { started <- topology.Ensure(t.Context(), js, inProduction(maskin())) }()
	nodes[1].Restart(t)
	nodes[2].Restart(t)
	require.NoError(t, <-started)
	require.Equal(t, 3, config(t, js, "DV_MASKIN_EVT").Replicas)
}

func TestEnsureOnACluster(t *testing.T) {
	t.Parallel()
	js := dvtest.Cluster(t).Connect(t).JetStream()
	require.NoError(t, topology.Ensure(t.Context(), js, inProduction(maskin())))

	// Four replicas of another service at once. In a cluster a create may be
	// accepted before all who are asked know of it.
	for _, err := range atOnce(4, func(int) error { return topology.Ensure(t.Context(), js, inProduction(plattform())) }) {
		require.NoError(t, err)
	}
	require.Equal(t, 3, config(t, js, "DV_PLATTFORM_DLQ").Replicas)
	require.NoError(t, topology.Verify(t.Context(), js, plattform()), "more replicas than declared are no drift")

	// No node for the fourth and fifth is what 10005 says. It may be that they
	// are just starting, so only the context ends the waiting.
	five := topology.Set{Service: subject.Nett, Streams: []topology.Stream{topology.Events(subject.Nett, topology.Limits{Replicas: 5})}}
	err := topology.Ensure(short(t, 500*time.Millisecond), js, five)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, jetstream.ErrorCode(10005), asError[*jetstream.APIError](t, err).ErrorCode)
	require.ErrorContains(t, err, "as many nodes as Replicas")

	// One in three is a destructive change for the operator.
	done, err := topology.Apply(t.Context(), js, plattform(), topology.ApplyOptions{})
	require.Empty(t, done)
	require.Len(t, asError[*topology.DestructiveError](t, err).Changes, 4)
	_, err = topology.Apply(t.Context(), js, plattform(), topology.ApplyOptions{Destructive: true})
	require.NoError(t, err)
	require.Equal(t, 1, config(t, js, "DV_PLATTFORM_DLQ").Replicas)
}
