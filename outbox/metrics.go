package outbox

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// metrics are the instruments of one relay. Stream names are few and declared, so
// the stream is a label; subjects, keys and tenants never are. All gauges are what
// this instance sees of the whole, so they are not to be added up over instances.
//
// Counters are the leader's, and cost
// an addition for each page, never for each message; gauges are every instance's.
// Safe for concurrent use.
type metrics struct {
	meter metric.Meter

	sent, repeated, back, faults, deleted metric.Int64Counter

	unpublished, parked, rows, leading, ready, term metric.Int64ObservableGauge
	age                                             metric.Float64ObservableGauge

	labels sync.Map // stream → labels
}

// labels are the attributes of one stream, made once.
type labels struct{ stream, sent metric.MeasurementOption }

func newMetrics(provider metric.MeterProvider) (*metrics, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	m := &metrics{meter: provider.Meter(telemetry.ScopeOutbox)}
	maker := telemetry.Maker{Meter: m.meter}
	// The semantic conventions have this one name, and count attempts; a message is
	// counted here once, when the stream acknowledged it, however often it was sent.
	m.sent = maker.Counter(telemetry.OutboxSent)
	m.repeated = maker.Counter(telemetry.OutboxDuplicates)
	m.back = maker.Counter(telemetry.OutboxRewinds)
	m.faults = maker.Counter(telemetry.OutboxFaults)
	m.deleted = maker.Counter(telemetry.OutboxDeleted)
	m.unpublished = maker.Gauge(telemetry.OutboxUnpublished)
	m.parked = maker.Gauge(telemetry.OutboxParked)
	m.rows = maker.Gauge(telemetry.OutboxRows)
	m.leading = maker.Gauge(telemetry.OutboxLeading)
	m.ready = maker.Gauge(telemetry.OutboxReady)
	m.term = maker.Gauge(telemetry.OutboxTerm)
	m.age = maker.Seconds(telemetry.OutboxAge)
	return m, maker.Err()
}

// of returns the attributes of a stream.
func (m *metrics) of(stream string) labels {
	if l, ok := m.labels.Load(stream); ok {
		return l.(labels)
	}
	l := labels{
		stream: metric.WithAttributes(telemetry.StreamLabels(stream)...),
		sent:   metric.WithAttributes(telemetry.SentLabels(stream)...),
	}
	m.labels.Store(stream, l)
	return l
}

// label is the stream alone.
func (m *metrics) label(stream string) metric.MeasurementOption { return m.of(stream).stream }

// published counts messages that a stream acknowledged, a page at a time.
func (m *metrics) published(stream string, n int) {
	m.sent.Add(context.Background(), int64(n), m.of(stream).sent)
}

// duplicates counts messages that a stream held already, a page at a time.
func (m *metrics) duplicates(stream string, n int) {
	if n > 0 {
		m.repeated.Add(context.Background(), int64(n), m.label(stream))
	}
}

// rewound counts a cursor that went back.
func (m *metrics) rewound(stream string) { m.back.Add(context.Background(), 1, m.label(stream)) }

// fault counts a stream that is held back, by why.
func (m *metrics) fault(stream string, why error) {
	m.faults.Add(context.Background(), 1, metric.WithAttributes(telemetry.Class(telemetry.StreamLabels(stream), faultClass(why))...))
}

// gone counts rows that retention deleted.
func (m *metrics) gone(stream string, n int) {
	m.deleted.Add(context.Background(), int64(n), m.label(stream))
}

// faultClass names the classes of ack.go and probe.go for a label.
func faultClass(why error) string {
	for _, c := range []struct {
		err  error
		name string
	}{
		{errImpossible, "impossible"},
		{errMisconfigured, "misconfigured"},
		{errRefused, "refused"},
		{errUnknown, "unknown"},
		{errNoAnswer, "no_answer"},
		{errSuspect, "suspect"},
	} {
		if errors.Is(why, c.err) {
			return c.name
		}
	}
	return "_OTHER" // as the semantic conventions say it
}

// gauges reports what an instance observed last, whenever somebody collects. What
// is too old is not reported: a gap is true, a number that stands still is not.
// It returns the function that ends it.
func (r *Relay) gauges() (end func()) {
	m := r.metrics
	registered, err := m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(m.leading, one(r.Leading()))
		o.ObserveInt64(m.ready, one(r.Ready() == nil))
		seen := r.seen.Load()
		if seen == nil || seen.old(r.observer.every) {
			return nil
		}
		o.ObserveInt64(m.term, seen.term)
		if seen.rows >= 0 {
			o.ObserveInt64(m.rows, seen.rows)
		}
		for _, s := range seen.streams {
			o.ObserveInt64(m.unpublished, s.unpublished, m.label(s.stream))
			o.ObserveInt64(m.parked, s.parked, m.label(s.stream))
			o.ObserveFloat64(m.age, s.age.Seconds(), m.label(s.stream))
		}
		return nil
	}, m.leading, m.ready, m.term, m.rows, m.unpublished, m.parked, m.age)
	if err != nil {
		r.log.Warn("relay is not measured", "reason", err)
		return func() {}
	}
	return func() { _ = registered.Unregister() }
}

// one is 1 for what holds.
func one(holds bool) int64 {
	if holds {
		return 1
	}
	return 0
}
