package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/topology"
)

// The durable moves to another node again and again, whose numbering of
// deliveries may lag behind what the last one sent.
//
// A row of docs/DELIVERY.md.
func TestLeaderChangesOfTheDurableKeepTheOrder(t *testing.T) {
	t.Parallel()
	cluster := dvtest.Cluster(t)
	l := ledgerOn(t, setupWith(t, cluster.Connect(t).JetStream(), 3, slowAcks, func(c *topology.Consumer) { c.MaxAckPending = 100 }))
	r := l.run(t, l.ordered(), l.apply(func(context.Context, envelope.Received[numberV1]) error {
		return pauseFor(2 * time.Millisecond)
	}))
	l.publishKeys(t, 20, 40)
	for moves := 1; moves <= 3; moves++ {
		require.Eventually(t, func() bool { return r.Stats().Handled >= uint64(moves)*150 }, 2*soon, tick)
		cluster.StepDownConsumer(t, l.declared.Stream.Name, l.declared.Durable)
	}
	l.settled(t)
	l.requireOrder(t, 20, 40)
}
