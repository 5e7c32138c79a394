package outbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"codeberg.org/dataverket/messaging/outbox"
)

// meter collects what relays measure.
type meter struct{ reader *sdk.ManualReader }

func newMeter() (meter, *sdk.MeterProvider) {
	reader := sdk.NewManualReader()
	return meter{reader}, sdk.NewMeterProvider(sdk.WithReader(reader))
}

// collect returns the points by name and labels, such as "dv.outbox.parked{DV_MASKIN_EVT}".
func (m meter) collect(t testing.TB) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, m.reader.Collect(context.WithoutCancel(t.Context()), &all))
	points := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		require.Equal(t, "codeberg.org/dataverket/messaging/outbox", scope.Scope.Name)
		for _, m := range scope.Metrics {
			require.NotEmpty(t, m.Description, m.Name)
			require.NotEmpty(t, m.Unit, m.Name)
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					points[m.Name+labels(p.Attributes)] = float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					points[m.Name+labels(p.Attributes)] = p.Value
				}
			case metricdata.Sum[int64]:
				require.True(t, data.IsMonotonic, m.Name)
				for _, p := range data.DataPoints {
					points[m.Name+labels(p.Attributes)] = float64(p.Value)
				}
			}
		}
	}
	return points
}

// labels gives the values of those labels that vary.
func labels(set attribute.Set) (text string) {
	for _, key := range []attribute.Key{"messaging.nats.stream", "error.type"} {
		if v, ok := set.Value(key); ok {
			text += "{" + v.AsString() + "}"
		}
	}
	return text
}

// requirePoint waits for a point, and returns all that were collected with it.
func (m meter) requirePoint(t testing.TB, name string, want func(float64) bool) (points map[string]float64) {
	t.Helper()
	require.Eventually(t, func() bool {
		points = m.collect(t)
		v, ok := points[name]
		return ok && want(v)
	}, 20*time.Second, 2*time.Millisecond, "%s never is as expected", name)
	return points
}

func is(want float64) func(float64) bool { return func(got float64) bool { return got == want } }

// Every instance measures, so that a leader that does nothing cannot keep all
// gauges at zero.
func TestEveryInstanceMeasuresWhatWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stop := b.relay(t, outbox.RelayConfig{Holder: "dead"})
	b.enqueueEach(t, map[string]int{}, 3)
	stop()
	b.exec(t, "update messaging.outbox_lease set term = 7, expires_at = clock_timestamp() + interval '1 hour'")
	b.exec(t, `insert into messaging.outbox_parked (stream, ordering_key, seq, id, subject, cause)
		select stream, ordering_key, seq, id, subject, 'a test' from messaging.outbox_events where seq = 1`)
	b.enqueue(t, "waits", 1, 2)
	b.exec(t, "update messaging.outbox_events set created_at = created_at - interval '5 minutes' where seq = 4")
	m, provider := newMeter()
	standby := b.newRelay(t, outbox.RelayConfig{Holder: "standby", LeaseTTL: time.Second, MeterProvider: provider})
	standby.ObserveEvery(2 * time.Millisecond)
	end := run(t, standby)
	points := m.requirePoint(t, "dv.outbox.unpublished{DV_MASKIN_EVT}", is(2))
	require.InDelta(t, 300, points["dv.outbox.oldest.age{DV_MASKIN_EVT}"], 60)
	require.EqualValues(t, 0, points["dv.outbox.oldest.age{DV_NETT_CMD}"])
	require.EqualValues(t, 1, points["dv.outbox.parked{DV_MASKIN_EVT}"])
	require.EqualValues(t, 0, points["dv.outbox.leading"])
	require.EqualValues(t, 7, points["dv.outbox.lease.term"])
	m.requirePoint(t, "dv.outbox.rows", is(5)) // the server tells its counters after a moment

	b.exec(t, "update messaging.outbox_lease set expires_at = clock_timestamp()")
	m.requirePoint(t, "dv.outbox.leading", is(1))
	m.requirePoint(t, "dv.outbox.lease.term", is(8))
	points = m.requirePoint(t, "dv.outbox.unpublished{DV_MASKIN_EVT}", is(0))
	require.EqualValues(t, 0, points["dv.outbox.oldest.age{DV_MASKIN_EVT}"])
	end()
	require.NotContains(t, m.collect(t), "dv.outbox.leading", "a relay that is gone still reports")
}

// Numbers that stand still because nobody can look any more would be believed.
func TestWhatCannotBeObservedIsNotReported(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, provider := newMeter()
	r := b.newRelay(t, outbox.RelayConfig{MeterProvider: provider, LeaseTTL: time.Second})
	r.ObserveEvery(2 * time.Millisecond)
	run(t, r)
	m.requirePoint(t, "dv.outbox.unpublished{DV_MASKIN_EVT}", is(0))
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "lock table messaging.outbox_state")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, reported := m.collect(t)["dv.outbox.unpublished{DV_MASKIN_EVT}"]
		return !reported
	}, 20*time.Second, 10*time.Millisecond)
	require.Contains(t, m.collect(t), "dv.outbox.leading")
	require.NoError(t, tx.Rollback(t.Context()))
	m.requirePoint(t, "dv.outbox.unpublished{DV_MASKIN_EVT}", is(0))
}

// Counters have the stream and the class of a fault as labels and nothing else.
func TestLeaderCountsByStreamAndClass(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, provider := newMeter()
	r := b.newRelay(t, outbox.RelayConfig{MeterProvider: provider})
	for range 3 {
		r.Published("DV_MASKIN_EVT", 1000)
		r.Duplicates("DV_MASKIN_EVT", 2)
	}
	r.Duplicates("DV_NETT_CMD", 0)
	r.Published("DV_NETT_CMD", 1)
	r.Fault("DV_NETT_CMD", fmt.Errorf("stored: %w", outbox.ErrRefused))
	r.Fault("DV_NETT_CMD", outbox.ErrNoAnswers)
	r.Fault("DV_NETT_CMD", outbox.ErrForTests)
	require.Equal(t, map[string]float64{
		"messaging.client.sent.messages{DV_MASKIN_EVT}": 3000,
		"messaging.client.sent.messages{DV_NETT_CMD}":   1,
		"dv.outbox.duplicates{DV_MASKIN_EVT}":           6,
		"dv.outbox.faults{DV_NETT_CMD}{refused}":        1,
		"dv.outbox.faults{DV_NETT_CMD}{no_answer}":      1,
		"dv.outbox.faults{DV_NETT_CMD}{_OTHER}":         1,
	}, m.collect(t))
}

func TestRewindsAndDeletedRowsAreCounted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	m, provider := newMeter()
	b.keeper(t, outbox.RelayConfig{MeterProvider: provider}, 4)
	b.enqueueEach(t, map[string]int{}, 10)
	b.age(t, 0)
	b.requireSeqs(t, 10)
	m.requirePoint(t, "dv.outbox.deleted{DV_MASKIN_EVT}", is(9))
	b.exec(t, `insert into messaging.outbox_rewinds (stream, requested_by, reason) values ('DV_MASKIN_EVT', 'operator:ola', 'test')`)
	m.requirePoint(t, "dv.outbox.rewinds{DV_MASKIN_EVT}", is(1))
}

// A page costs a few additions, without a lock and without garbage worth naming.
func BenchmarkCountingAPage(b *testing.B) {
	for name, provider := range map[string]metric.MeterProvider{"no SDK": nil, "SDK": func() metric.MeterProvider { _, p := newMeter(); return p }()} {
		b.Run(name, func(b *testing.B) {
			r := outbox.Counting(provider)
			b.ReportAllocs()
			for b.Loop() {
				r.Published("DV_MASKIN_EVT", 2000)
				r.Duplicates("DV_MASKIN_EVT", 1)
			}
		})
	}
}
