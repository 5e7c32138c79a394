package sites_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"codeberg.org/dataverket/messaging/sites"
)

// points collects the figures by name, and requires the labels of the one flow.
func points(t *testing.T, reader *sdkmetric.ManualReader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.WithoutCancel(t.Context()), &all))
	found := map[string]float64{}
	labels := attribute.NewSet(attribute.String("messaging.nats.stream", copyAtB), attribute.String("messaging.nats.source.site", "dc1"))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				require.Len(t, data.DataPoints, 1)
				require.Equal(t, labels, data.DataPoints[0].Attributes)
				found[m.Name] = float64(data.DataPoints[0].Value)
			case metricdata.Gauge[float64]:
				require.Len(t, data.DataPoints, 1)
				found[m.Name] = data.DataPoints[0].Value
			case metricdata.Sum[int64]:
				require.Len(t, data.DataPoints, 1)
				found[m.Name] = float64(data.DataPoints[0].Value)
			}
		}
	}
	return found
}

// What an alert needs: the silence and the age of the last completeness grow while the
// link is down, although the server's own lag is 0.
func TestAWatcherMeasuresItsFlows(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	reader := sdkmetric.NewManualReader()
	cfg := fast()
	cfg.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	w, stop := b.stoppable(t, cfg)
	a.publish(t, 10, "server")
	sent := time.Now()
	requireFlow(t, w, "it moves", func(f sites.Flow) bool { return moving(f) && f.CaughtUp.After(sent) })
	up := points(t, reader)
	require.EqualValues(t, 1, up["dv.sites.reachable"])
	require.Less(t, up["dv.sites.silence"], soon.Seconds())
	for _, name := range []string{"dv.sites.behind", "dv.sites.stuck", "dv.sites.full"} {
		require.Contains(t, up, name)
		require.Zero(t, up[name], name)
	}
	s.Cut()
	requireFlow(t, w, "silent", func(f sites.Flow) bool { return f.State == sites.StateSilent })
	down := points(t, reader)
	require.Zero(t, down["dv.sites.reachable"])
	require.Greater(t, down["dv.sites.silence"], 1.4)
	require.Greater(t, down["dv.sites.caught_up.age"], 1.0)
	require.Contains(t, down, "dv.sites.resumed")
	stop()
	require.Empty(t, points(t, reader), "one that is gone reports nothing")
}

// A number that nobody has looked at is no number.
func TestWhatIsNotKnownIsNotMeasured(t *testing.T) {
	t.Parallel()
	s, a, b := ends(t, eventsToB())
	a.watcher(t, fast())
	before, end := b.stoppable(t, fast())
	requireFlow(t, before, "the other site's watcher is known here", moving)
	end()
	s.BlackHole()
	reader := sdkmetric.NewManualReader()
	cfg := fast()
	cfg.AskTimeout = time.Minute // the first look does not end
	cfg.MeterProvider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	_, stop := b.stoppable(t, cfg)
	require.Eventually(t, func() bool { return len(points(t, reader)) > 0 }, soon, tick)
	known := points(t, reader)
	require.Contains(t, known, "dv.sites.compared.age")
	delete(known, "dv.sites.compared.age") // since the start
	require.Equal(t, map[string]float64{"dv.sites.resumed": 0, "dv.sites.resent": 0}, known)
	stop()
}
