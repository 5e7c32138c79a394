package outbox_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"codeberg.org/dataverket/messaging/outbox"
)

// braked returns a bundle whose outbox holds writers back after a minute.
func braked(t *testing.T) bundle {
	t.Helper()
	b := setup(t)
	out, err := outbox.New(maskinSet, outbox.Config{MaxLag: time.Minute})
	require.NoError(t, err)
	b.out = out
	return b
}

// try enqueues one event in a transaction that does something else as well, and
// commits it whatever Enqueue says.
func (b bundle) try(t testing.TB, key string) error {
	t.Helper()
	var refused error
	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "insert into deeds values ($1)", key); err != nil {
			return err
		}
		refused = b.out.Enqueue(origin(t.Context()), tx, serverCounted.New(key, counted{Key: key, N: 1}))
		return nil
	}))
	return refused
}

// While the relay is behind, writers are told so before anything is sent, for the
// stream that is late and no other; and not any more once it caught up.
func TestWritersAreHeldBackWhileTheirStreamIsLate(t *testing.T) {
	t.Parallel()
	b := braked(t)
	b.exec(t, "create table deeds (key text)")
	stop := b.relay(t, outbox.RelayConfig{Holder: "dead"})
	b.requireDrained(t)
	stop()
	b.exec(t, "update messaging.outbox_lease set expires_at = clock_timestamp() + interval '1 hour'")
	r := b.newRelay(t, outbox.RelayConfig{Holder: "standby", LeaseTTL: time.Second})
	r.ObserveEvery(2 * time.Millisecond)
	run(t, r)
	require.NoError(t, b.try(t, "first"))
	b.exec(t, "update messaging.outbox_events set created_at = created_at - interval '5 minutes'")
	var held *outbox.BackpressureError
	require.Eventually(t, func() bool { return errors.As(b.try(t, "more"), &held) }, 20*time.Second, time.Millisecond)
	require.Equal(t, events, held.Stream)
	require.Equal(t, time.Minute, held.Bound)
	require.InDelta(t, 5*time.Minute, held.Age, float64(time.Minute))
	require.NoError(t, pgx.BeginFunc(t.Context(), b.pool, func(tx pgx.Tx) error {
		return b.out.Enqueue(origin(t.Context()), tx, provision.New("link", counted{Key: "c", N: 1}))
	}), "the other stream is not late")
	require.Equal(t, b.number(t, "select count(*) from deeds"), b.number(t, "select count(*) from messaging.outbox_events where stream = 'DV_MASKIN_EVT'")+1,
		"the refused transaction did not commit what else it did")

	b.exec(t, "update messaging.outbox_lease set expires_at = clock_timestamp()")
	require.Eventually(t, func() bool { return b.try(t, "again") == nil }, 20*time.Second, time.Millisecond, "writers are held back for ever")
}

// A process that only writes looks by itself, and sees what is late at once.
func TestWriterWithoutARelayWatches(t *testing.T) {
	t.Parallel()
	b := braked(t)
	b.exec(t, "create table deeds (key text)")
	stop := b.relay(t, outbox.RelayConfig{})
	b.requireDrained(t)
	stop()
	require.NoError(t, b.try(t, "first"))
	b.exec(t, "update messaging.outbox_events set created_at = created_at - interval '5 minutes'")
	require.NoError(t, b.try(t, "second"), "nobody looks yet")
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		b.out.Watch(ctx, b.pool)
	}()
	require.Eventually(t, func() bool { return b.try(t, "more") != nil }, 20*time.Second, time.Millisecond)
	b.relay(t, outbox.RelayConfig{})
	require.Eventually(t, func() bool { return b.try(t, "again") == nil }, 20*time.Second, time.Millisecond)
	cancel()
	<-watched
}

// Without MaxLag an outage is lag, as old as it may be.
func TestWritersAreNotHeldBackByDefault(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, "create table deeds (key text)")
	stop := b.relay(t, outbox.RelayConfig{})
	b.requireDrained(t)
	stop()
	b.exec(t, "update messaging.outbox_lease set expires_at = clock_timestamp() + interval '1 hour'")
	require.NoError(t, b.try(t, "first"))
	b.exec(t, "update messaging.outbox_events set created_at = created_at - interval '5 days'")
	r := b.newRelay(t, outbox.RelayConfig{Holder: "standby", LeaseTTL: time.Second})
	r.ObserveEvery(2 * time.Millisecond)
	run(t, r)
	require.Eventually(t, func() bool { return r.Alarm() != nil }, 20*time.Second, time.Millisecond)
	require.NoError(t, b.try(t, "second"))
	b.out.Watch(t.Context(), b.pool) // returns at once
	for _, d := range []time.Duration{-1, time.Millisecond, 25 * time.Hour} {
		_, err := outbox.New(maskinSet, outbox.Config{MaxLag: d})
		require.ErrorContains(t, err, "Config.MaxLag: "+d.String()+" is out of range")
	}
}
