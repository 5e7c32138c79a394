package outbox_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// A relay that leads and does nothing must not hide: whoever stands by sees that
// events wait, says so once, and stays ready, for it has nothing to be blamed for.
//
// A row of docs/DELIVERY.md.
func TestStandbyRaisesTheAlarmWhenEventsWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{Holder: "dead"})
	b.enqueueEach(t, map[string]int{}, 1)
	stop()
	b.exec(t, "update messaging.outbox_lease set expires_at = clock_timestamp() + interval '1 hour'")
	var log lines
	standby := b.newRelay(t, outbox.RelayConfig{
		Holder: "standby", LeaseTTL: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	standby.ObserveEvery(2 * time.Millisecond)
	run(t, standby)
	b.enqueue(t, "late", 1)
	requireReady(t, standby)
	require.NoError(t, standby.Alarm(), "nothing waits for a minute yet")

	b.exec(t, "update messaging.outbox_events set created_at = created_at - interval '5 minutes'")
	require.Eventually(t, func() bool { return standby.Alarm() != nil }, 20*time.Second, time.Millisecond)
	late, ok := errors.AsType[*outbox.LagError](standby.Alarm())
	require.True(t, ok)
	require.Equal(t, events, late.Stream)
	require.InDelta(t, 5*time.Minute, late.Age, float64(time.Minute))
	require.Equal(t, time.Minute, late.Bound)
	requireReady(t, standby)

	b.exec(t, "update messaging.outbox_lease set expires_at = clock_timestamp()")
	b.requireStored(t, events, 2)
	require.Eventually(t, func() bool { return standby.Alarm() == nil }, 20*time.Second, time.Millisecond)
	requireReady(t, standby)
	require.Equal(t, 1, strings.Count(log.String(), "relay alarm\""))
	require.Equal(t, 1, strings.Count(log.String(), "relay alarm is over"))
}

// A leader that drains a backlog is late and does its work; one whose cursor
// stands still does not, whatever it believes.
func TestLeaderThatStandsStillIsNotReady(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.newRelay(t, outbox.RelayConfig{})
	r.ObserveEvery(2 * time.Millisecond)
	var stuck atomic.Bool
	entered, resume := make(chan struct{}), make(chan struct{})
	r.OnPublished(func(string, int) {
		if stuck.CompareAndSwap(true, false) {
			close(entered)
			<-resume
		}
	})
	run(t, r)
	b.enqueueEach(t, map[string]int{}, 1)
	stuck.Store(true)
	b.enqueue(t, "late", 1)
	<-entered
	b.exec(t, "update messaging.outbox_events set created_at = created_at - interval '5 minutes'")
	require.Eventually(t, func() bool { return r.Alarm() != nil }, 20*time.Second, time.Millisecond)
	require.NoError(t, r.Ready(), "its cursor moved a moment ago")
	b.exec(t, "update messaging.outbox_state set updated_at = updated_at - interval '4 minutes'")
	require.Eventually(t, func() bool { return r.Ready() != nil }, 20*time.Second, time.Millisecond)
	late, ok := errors.AsType[*outbox.LagError](r.Ready())
	require.True(t, ok)
	require.InDelta(t, 4*time.Minute, late.Still, float64(time.Minute))
	close(resume)
	require.Eventually(t, func() bool { return r.Ready() == nil && r.Alarm() == nil }, 20*time.Second, time.Millisecond)
}

// The events of a long transaction are old when they become visible. One look
// that meets them is no alarm; only the second in a row is.
func TestOneLookIsNoAlarm(t *testing.T) {
	t.Parallel()
	l := outbox.NewLateness(time.Minute)
	type seen = map[string]time.Duration
	for i, look := range []struct {
		ages seen
		late []string
		soon bool
	}{
		{seen{"a": time.Hour, "b": 59 * time.Second}, nil, true},
		{seen{"a": 0, "b": time.Hour}, nil, true},
		{seen{"a": time.Hour, "b": time.Hour}, []string{"b"}, true},
		{seen{"a": time.Hour, "b": time.Hour}, []string{"a", "b"}, false},
		{seen{"a": time.Minute}, nil, false},
		{seen{"b": time.Hour}, nil, true},
	} {
		late, soon := l.Note(look.ages)
		require.Equal(t, look.late, late, i)
		require.Equal(t, look.soon, soon, i)
	}
	late, soon := outbox.NewLateness(-1).Note(seen{"a": time.Hour})
	require.Empty(t, late)
	require.False(t, soon)
}

// While nothing waits, what an instance asks is one statement; what an idle relay
// costs is a promise.
func TestObservingAnIdleOutboxIsOneStatement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{})
	b.enqueueEach(t, map[string]int{}, 3)
	stop()
	b.exec(t, "update messaging.outbox_lease set holder = 'other', expires_at = clock_timestamp() + interval '1 hour'")
	var asked counter
	cfg := b.pool.Config()
	cfg.ConnConfig.Tracer = &asked
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	const every = 20 * time.Millisecond
	r := bundle{pool: pool, js: b.js, out: b.out}.newRelay(t, outbox.RelayConfig{LeaseTTL: time.Minute})
	r.ObserveEvery(every)
	began := time.Now()
	run(t, r)
	require.Eventually(t, func() bool { return asked.n.Load() > 20 }, 20*time.Second, time.Millisecond)
	// One request for the lease, one statement for each look.
	require.LessOrEqual(t, asked.n.Load(), 2+int64(time.Since(began)/every))
	require.Zero(t, asked.batched.Load())
	b.enqueue(t, "waits", 1)
	require.Eventually(t, func() bool { return asked.batched.Load() > 0 }, 20*time.Second, time.Millisecond, "what waits is not measured")
}

// counter counts statements as a tracer of pgx.
type counter struct{ n, batched atomic.Int64 }

func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.n.Add(1)
	return ctx
}

func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *counter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.batched.Add(1)
	return ctx
}

func (c *counter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (c *counter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

func TestMaxAgeIsBoundedOrOff(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{time.Millisecond, 25 * time.Hour} {
		_, err := outbox.NewRelay(nil, nil, nil, outbox.RelayConfig{MaxAge: d})
		require.ErrorContains(t, err, "RelayConfig.MaxAge: "+d.String()+" is out of range")
	}
	for _, d := range []time.Duration{-1, time.Second, 24 * time.Hour} {
		_, err := outbox.NewRelay(nil, nil, nil, outbox.RelayConfig{MaxAge: d})
		require.NotContains(t, err.Error(), "MaxAge")
	}
}
