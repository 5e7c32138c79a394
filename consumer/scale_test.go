package consumer_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/topology"
)

func TestReplicasShareADurable(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *topology.Consumer) { c.MaxAckPending = 50 })
	var starts [2]tally
	names := numbered(300)
	b.publish(t, names...)
	for i := range starts {
		b.run(t, b.config(func(c *consumer.Config) { c.Concurrency = 4 }), handle(func(_ context.Context, m received) error {
			starts[i].add(m.Data.Hostname)
			return nil
		}))
	}
	b.settled(t)
	require.ElementsMatch(t, names, append(starts[0].names(), starts[1].names()...), "each message once")
	require.NotEmpty(t, starts[1].names())
}

// Replicas are replaced one after the other while messages come. Nothing is
// lost, nothing waits for AckWait, and nothing becomes a dead letter.
//
// A row of docs/DELIVERY.md.
func TestRollingRestartUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *topology.Consumer) { c.AckWait, c.MaxAckPending = time.Hour, 50 })
	var handled tally
	route := handle(func(_ context.Context, m received) error {
		handled.add(m.Data.Hostname)
		return nil
	})
	cfg := b.config(func(c *consumer.Config) { c.Concurrency = 8 })
	names := numbered(600)
	var publisher sync.WaitGroup
	publisher.Go(func() { b.publish(t, names...) })
	replicas := []*running{b.run(t, cfg, route), b.run(t, cfg, route)}
	for range 6 {
		replicas = append(replicas[1:], b.run(t, cfg, route))
		require.NoError(t, replicas[0].stop())
		replicas = append(replicas[1:], b.run(t, cfg, route))
	}
	publisher.Wait()
	b.settled(t)
	require.Subset(t, handled.names(), names)
	require.Empty(t, b.graves.all())
}

// A leader change interrupts requests; the pull goes on with the new leader.
//
// A row of docs/DELIVERY.md.
func TestLeaderChangesLoseNothing(t *testing.T) {
	t.Parallel()
	cluster := dvtest.Cluster(t)
	b := setupWith(t, cluster.Connect(t).JetStream(), 3)
	var handled tally
	r := b.run(t, b.config(), handle(func(_ context.Context, m received) error {
		handled.add(m.Data.Hostname)
		return nil
	}))
	names := numbered(60)
	for i, name := range names {
		b.publish(t, name)
		if i%20 == 10 {
			cluster.StepDownConsumer(t, b.declared.Stream.Name, b.declared.Durable)
		}
	}
	b.settled(t)
	require.Subset(t, handled.names(), names)
	awaitReady(t, r)
}
