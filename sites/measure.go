package sites

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// measures are the instruments of a watcher. They are read when somebody collects,
// and cost nothing else. All replicas tell of the same flows.
type measures struct {
	meter                          metric.Meter
	reachable, behind, full, stuck metric.Int64ObservableGauge
	silence, caughtUp              metric.Float64ObservableGauge
	missing, originLacks           metric.Int64ObservableGauge
	compared                       metric.Float64ObservableGauge
	resumed, resent                metric.Int64ObservableCounter
}

func newMeasures(provider metric.MeterProvider) (*measures, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	m := &measures{meter: provider.Meter(telemetry.ScopeSites)}
	maker := telemetry.Maker{Meter: m.meter}
	m.reachable = maker.Gauge(telemetry.SitesReachable)
	m.behind = maker.Gauge(telemetry.SitesBehind)
	m.full = maker.Gauge(telemetry.SitesFull)
	m.stuck = maker.Gauge(telemetry.SitesStuck)
	m.silence = maker.Seconds(telemetry.SitesSilence)
	m.caughtUp = maker.Seconds(telemetry.SitesCaughtUpAge)
	m.resumed = maker.Count(telemetry.SitesResumed)
	m.missing = maker.Gauge(telemetry.SitesMissing)
	m.originLacks = maker.Gauge(telemetry.SitesOriginLacks)
	m.compared = maker.Seconds(telemetry.SitesComparedAge)
	m.resent = maker.Count(telemetry.SitesResent)
	return m, maker.Err()
}

// observe reports the status of the watcher's flows whenever somebody collects. It
// returns the function that ends it.
func (m *measures) observe(w *Watcher, since time.Time) (end func()) {
	labels := make([]metric.MeasurementOption, len(w.watched))
	for i, one := range w.watched {
		labels[i] = metric.WithAttributes(telemetry.FlowLabels(one.stream.Name, one.From)...)
	}
	registered, err := m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := time.Now()
		for i, one := range w.watched {
			m.observeFlow(o, one.status(), labels[i], since, now, w.stale())
		}
		return nil
	}, m.reachable, m.behind, m.full, m.stuck, m.silence, m.caughtUp, m.resumed,
		m.missing, m.originLacks, m.compared, m.resent)
	if err != nil {
		w.log.Warn("sites: not measured", "error", err)
		return func() {}
	}
	return func() { _ = registered.Unregister() }
}

// observeFlow reports one flow. What is too old is not reported: a gap is true, a
// number that stands still is not. The ages are as of now.
func (m *measures) observeFlow(o metric.Observer, f Flow, label metric.MeasurementOption, since, now time.Time, stale time.Duration) {
	o.ObserveInt64(m.resumed, int64(f.Resumed), label)
	o.ObserveInt64(m.resent, int64(f.Resent), label)
	if compared := f.Compared; compared.IsZero() {
		o.ObserveFloat64(m.compared, now.Sub(since).Seconds(), label)
	} else {
		o.ObserveFloat64(m.compared, now.Sub(compared).Seconds(), label)
		o.ObserveInt64(m.missing, int64(f.Missing), label)
		o.ObserveInt64(m.originLacks, int64(f.OriginLacks), label)
	}
	if f.Looked.IsZero() || now.Sub(f.Looked) > stale {
		return
	}
	o.ObserveInt64(m.reachable, one(f.Reachable), label)
	o.ObserveInt64(m.stuck, one(f.State == StateStuck), label)
	o.ObserveInt64(m.behind, int64(f.Behind), label)
	o.ObserveInt64(m.full, int64(f.Full*100), label)
	if !f.Heard.IsZero() {
		o.ObserveFloat64(m.silence, now.Sub(f.Heard).Seconds(), label)
	}
	if f.CaughtUp.After(since) {
		since = f.CaughtUp
	}
	o.ObserveFloat64(m.caughtUp, now.Sub(since).Seconds(), label)
}

// stale is how old a status is that says nothing of now.
func (w *Watcher) stale() time.Duration {
	return 3*w.cfg.Every + w.cfg.AskTimeout + 2*localTimeout
}

// one is 1 for what holds.
func one(holds bool) int64 {
	if holds {
		return 1
	}
	return 0
}
