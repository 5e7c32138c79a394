package consumer_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"codeberg.org/dataverket/messaging/consumer"
	"codeberg.org/dataverket/messaging/envelope"
)

// meter collects what consumers measure.
type meter struct {
	*sdkmetric.MeterProvider
	reader *sdkmetric.ManualReader
}

func newMeter() meter {
	reader := sdkmetric.NewManualReader()
	return meter{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), reader}
}

func (m meter) config(c *consumer.Config) { c.MeterProvider = m.MeterProvider }

// points returns the figures by name, and class if there is one; of a histogram
// how many were recorded. labels sees every label.
func (m meter) points(t *testing.T, labels func(name string, set attribute.Set)) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, m.reader.Collect(context.WithoutCancel(t.Context()), &all))
	points := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, measured := range scope.Metrics {
			require.NotEmpty(t, measured.Unit, measured.Name)
			require.NotEmpty(t, measured.Description, measured.Name)
			add := func(set attribute.Set, value float64) {
				name := measured.Name
				if class, ok := set.Value("error.type"); ok {
					name += "{" + class.AsString() + "}"
				}
				points[name] += value
				if labels != nil {
					labels(measured.Name, set)
				}
			}
			switch data := measured.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, float64(p.Value))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					require.Equal(t, []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}, p.Bounds)
					add(p.Attributes, float64(p.Count))
				}
			}
		}
	}
	return points
}

// A consumer measures what it did, what it is doing and how far its durable is
// behind; labels are the durable, the stream and the class of a fault.
func TestConsumerMeasuresDeliveriesOutcomesAndItsDurable(t *testing.T) {
	t.Parallel()
	b, m := setup(t), newMeter()
	blocked, release := make(chan struct{}), make(chan struct{})
	c := b.new(t, b.config(m.config), handle(func(_ context.Context, r received) error {
		switch {
		case r.Data.Hostname == "blocks":
			close(blocked)
			<-release
		case r.Data.Hostname == "poison":
			return envelope.Permanent(errBroken)
		case r.Attempt == 1:
			return errBroken
		}
		return nil
	}))
	c.LookEvery(10 * time.Millisecond)
	r := start(t, c)
	b.publish(t, "a", "b", "poison")
	b.settled(t)
	b.publish(t, "blocks")
	<-blocked
	var points map[string]float64
	require.Eventually(t, func() bool {
		points = m.points(t, func(name string, set attribute.Set) {
			for _, label := range set.ToSlice() {
				require.Contains(t, []attribute.Key{"messaging.consumer.group.name", "messaging.nats.stream", "messaging.system",
					"messaging.operation.name", "error.type"}, label.Key, name)
			}
		})
		return points["dv.consumer.ack.pending"] == 1 && points["dv.consumer.ready"] == 1
	}, soon, tick)
	for name, want := range map[string]float64{
		"messaging.client.consumed.messages": 6, "dv.consumer.redeliveries": 2, "dv.consumer.retries": 2,
		"dv.consumer.dead_letters{poison}": 1, "dv.consumer.dead_letters{decode}": 0,
		"messaging.process.duration": 2, "messaging.process.duration{retry}": 2, "messaging.process.duration{poison}": 1,
		"dv.consumer.in_flight": 1, "dv.consumer.breaker.open": 0, "dv.consumer.pending": 0,
		"dv.consumer.oldest.unread.age.limit": (7 * 24 * time.Hour).Seconds(),
	} {
		require.Contains(t, points, name)
		require.Equal(t, want, points[name], name)
	}
	require.Less(t, points["dv.consumer.oldest.unread.age"], soon.Seconds())
	require.NotContains(t, points, "dv.consumer.active")
	require.NotContains(t, points, "dv.consumer.parked")
	close(release)
	require.NoError(t, r.stop())
	require.NotContains(t, m.points(t, nil), "dv.consumer.in_flight", "one that is gone still reports")
}
