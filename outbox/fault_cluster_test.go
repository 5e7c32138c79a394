package outbox_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/dvtest"
	"codeberg.org/dataverket/messaging/outbox"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// setupCluster is setup with three brokers and three copies of each stream.
func setupCluster(t *testing.T) (*dvtest.NATSCluster, bundle) {
	t.Helper()
	c := dvtest.Cluster(t)
	b := bundle{pool: dvtest.Postgres(t), js: c.Connect(t).JetStream(), out: newOutbox(t)}
	require.NoError(t, topology.Ensure(t.Context(), b.js, topology.Set{
		Service: subject.Maskin, Streams: []topology.Stream{topology.Events(subject.Maskin, topology.Limits{Replicas: 3})},
	}))
	return c, b
}

// load commits messages until stopped, and counts them.
type load struct {
	counter map[string]int // to be read after stop
	stop    func()
}

// startLoad commits rounds of four messages per key, one transaction a round.
func (b bundle) startLoad(t *testing.T, keys int) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{counter: map[string]int{}}
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if err := b.commitRuns(t.Context(), l.counter, 0, keys, 4); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	l.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(l.stop)
	return l
}

// requireFlow waits until n more messages are stored in the event stream.
func (b bundle) requireFlow(t *testing.T, n uint64) {
	t.Helper()
	var first uint64
	require.Eventually(t, func() bool {
		s, err := b.js.Stream(t.Context(), events)
		if err != nil {
			return false // an election is on
		}
		stored := s.CachedInfo().State.Msgs
		if first == 0 {
			first = stored + 1
		}
		return stored >= first+n
	}, 30*time.Second, 5*time.Millisecond, "messages do not flow")
}

// The leader of the stream changes again and again while writers commit, by
// request and because its machine is gone. Acknowledgements get lost with it, and
// proposals of the old leader may or may not be in the stream.
//
// A row of docs/DELIVERY.md.
func TestLeaderOfTheStreamChangesUnderLoad(t *testing.T) {
	t.Parallel()
	c, b := setupCluster(t)
	r := b.newRelay(t, outbox.RelayConfig{PageRows: 500, AckTimeout: 300 * time.Millisecond})
	run(t, r)
	writers := b.startLoad(t, 10)
	b.requireFlow(t, 60)
	for range 4 {
		c.StepDownStream(t, events)
		b.requireFlow(t, 60)
	}
	gone := c.StopStreamLeader(t, events)
	b.requireFlow(t, 60)
	gone.Restart(t)
	c.AwaitReady(t)
	b.requireFlow(t, 60)
	c.StepDownStream(t, events)
	b.requireFlow(t, 60)
	writers.stop()
	b.requireDrained(t)
	b.requireExact(t, writers.counter)
	require.Zero(t, b.status(t).Rewinds, "a change of leaders was taken for loss")
	requireReady(t, r)
}
