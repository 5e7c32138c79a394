package outbox_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// The highest id that a snapshot counts as new is not the next one to be drawn,
// but the one after the highest that has ended: a transaction above it may be
// open since long, and have its numbers. Such a row was lost when the floor of a
// walk's target was a number read before the target was taken and no more: the
// walk that followed looked above it.
//
// A row of docs/DELIVERY.md.
func TestWriterThatIsOpenWhenAWalkBeginsIsNotLost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{PageRows: 10, LeaseTTL: time.Minute}) // no renewal draws an id meanwhile
	var armed atomic.Bool
	var once, follow sync.Once
	polled, goOn := make(chan struct{}), make(chan struct{})
	r.OnPolled(func() {
		if armed.Load() {
			once.Do(func() { close(polled); <-goOn })
		}
	})
	open, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	r.OnPublished(func(string, int) {
		follow.Do(func() { // in the first walk: what comes now is for another one
			require.NoError(t, open.Commit(t.Context()))
			b.copyMessages(t, 100)
		})
	})
	run(t, r)
	require.Eventually(t, r.Leading, 20*time.Second, time.Millisecond)
	armed.Store(true)
	<-polled
	b.copyMessages(t, 100)
	require.NoError(t, b.out.Enqueue(origin(t.Context()), open, serverCounted.New("open", counted{Key: "open", N: 1})))
	close(goOn)
	b.requireStored(t, events, 201)
}

// The sequence is set back while a relay leads, as TRUNCATE … RESTART IDENTITY
// does: the floors are too high from then on, and a walk must not begin with them.
func TestSequenceSetBackUnderALeaderHidesNoRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.relay(t, outbox.RelayConfig{PageRows: 5})
	for i := range 30 {
		b.enqueue(t, "before", i+1)
		if i > 26 {
			b.requireDrained(t)
		}
	}
	b.requireStored(t, events, 30)
	b.requireDrained(t)
	b.exec(t, "truncate messaging.outbox_events restart identity")
	counter := map[string]int{}
	b.enqueueOnKeys(t, counter, 20) // more than a page, at once
	b.requireStored(t, events, 50)
	b.requireDrained(t)
}
