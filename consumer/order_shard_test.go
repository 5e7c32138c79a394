package consumer_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// shards declares n durables over the whole stream, from a sequence on, and runs
// an active instance of each.
func (l *ledger) shards(t *testing.T, n int, from uint64) []*running {
	t.Helper()
	var all []*running
	for shard := range n {
		d := l.declared
		d.Durable, d.Start = shardName(t, shard, n), topology.StartAtSequence(from)
		_, err := l.js.CreateConsumer(t.Context(), d.Stream.Name, d.Config())
		require.NoError(t, err)
		_, err = l.js.CreateConsumer(t.Context(), d.ReplayStream(), d.ReplayConfig())
		require.NoError(t, err)
		all = append(all, l.run(t, l.ordered(func(c *consumer.Config) {
			c.Consumer, c.Order.Shard, c.Order.Shards = d, shard, n
		}), l.apply(nil)))
	}
	return all
}

func shardName(t *testing.T, shard, of int) string {
	t.Helper()
	name, err := topology.DurableFrom(subject.Plattform, subject.Maskin, fmt.Sprintf("shard%dof%d", shard, of))
	require.NoError(t, err)
	return name
}

// Each shard has its own active instance and keys, and what cannot be decoded is
// one dead letter, not one for each.
func TestShardsDivideTheKeys(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	all := l.shards(t, 3, 1)
	l.publishKeys(t, 60, 4)
	broken := number(t, "x", 1)
	broken.Data = []byte("{")
	l.send(t, broken)
	var skipped uint64
	for shard, r := range all {
		l.through(t, l.declared.Stream.Name, shardName(t, shard, len(all)))
		require.Positive(t, r.Stats().Handled)
		skipped += r.Stats().Skipped
	}
	l.requireOrder(t, 60, 4)
	require.GreaterOrEqual(t, skipped, uint64(2*241), "more where a lease was lost meanwhile")
	require.Len(t, l.graves.all(), 1)
}

// From one durable to shards, as the package documentation says: stop, begin the
// shards behind the old ack floor, with the same inbox.
//
// A row of docs/DELIVERY.md.
func TestRollOverToShardsKeepsOrderAndOnce(t *testing.T) {
	t.Parallel()
	l := setupLedger(t, slowAcks)
	r := l.run(t, l.ordered(), l.apply(nil))
	l.publishKeys(t, 40, 10)
	require.Eventually(t, func() bool { return r.Stats().Handled >= 100 }, soon, tick)
	require.NoError(t, r.stop())
	info, err := l.info()
	require.NoError(t, err)
	all := l.shards(t, 2, info.AckFloor.Stream+1)
	require.Eventually(t, func() bool {
		var n int
		return l.pool.QueryRow(t.Context(), `select count(*) from effect`).Scan(&n) == nil && n >= 400
	}, soon, tick)
	for _, s := range all {
		require.NoError(t, s.stop())
	}
	l.requireOrder(t, 40, 10)
}
