package outbox

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// What is measured. Stream names are few and declared, so the stream is a label;
// subjects, keys and tenants never are. All gauges are what this instance sees of
// the whole, so they are not to be added up over instances.
const (
	meterName = "codeberg.org/dataverket/messaging/outbox"

	streamKey = attribute.Key("messaging.nats.stream")
	classKey  = attribute.Key("error.type") // of the semantic conventions
)

// metrics are the instruments of one relay. Counters are the leader's, and cost
// an addition for each page, never for each message; gauges are every instance's.
// Safe for concurrent use.
type metrics struct {
	meter metric.Meter

	sent, repeated, back, faults, deleted metric.Int64Counter

	unpublished, parked, rows, leading, term metric.Int64ObservableGauge
	age                                      metric.Float64ObservableGauge

	labels sync.Map // stream → labels
}

// labels are the attributes of one stream, made once.
type labels struct{ stream, sent metric.MeasurementOption }

func newMetrics(provider metric.MeterProvider) (*metrics, error) {
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	m := &metrics{meter: provider.Meter(meterName)}
	return m, errors.Join(m.makeCounters(), m.makeGauges())
}

func (m *metrics) makeCounters() error {
	var faults []error
	counter := func(into *metric.Int64Counter, name, unit, description string) {
		made, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		*into, faults = made, append(faults, err)
	}
	// The one name that the semantic conventions have. They count attempts; a
	// message is counted here once, when the stream acknowledged it, however often
	// it was sent.
	counter(&m.sent, "messaging.client.sent.messages", "{message}", "Messages of the outbox that their stream acknowledged.")
	counter(&m.repeated, "dv.outbox.duplicates", "{message}", "Messages that their stream held already: sent again after a fault, a fail-over or a rewind.")
	counter(&m.back, "dv.outbox.rewinds", "{rewind}", "Times that a cursor went back: the broker had lost messages, or an operator asked for it.")
	counter(&m.faults, "dv.outbox.faults", "{fault}", "Times that a stream was held back, by the class of the fault.")
	counter(&m.deleted, "dv.outbox.deleted", "{message}", "Published rows that retention deleted.")
	return errors.Join(faults...)
}

func (m *metrics) makeGauges() error {
	var faults []error
	gauge := func(into *metric.Int64ObservableGauge, name, unit, description string) {
		made, err := m.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
		*into, faults = made, append(faults, err)
	}
	gauge(&m.unpublished, "dv.outbox.unpublished", "{message}", "Committed messages that are not published yet; counted up to 10,000.")
	gauge(&m.parked, "dv.outbox.parked", "{key}", "Ordering keys that are held back until an operator decides.")
	gauge(&m.rows, "dv.outbox.rows", "{message}", "Rows in the outbox, published ones that are retained included; an estimate.")
	gauge(&m.leading, "dv.outbox.leading", "1", "1 if this instance publishes, else 0.")
	gauge(&m.term, "dv.outbox.lease.term", "1", "The term of the lease; it grows with each change of leadership.")
	var err error
	m.age, err = m.meter.Float64ObservableGauge("dv.outbox.oldest.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest committed message that is not published yet; 0 without one."))
	return errors.Join(append(faults, err)...)
}

// of returns the attributes of a stream.
func (m *metrics) of(stream string) labels {
	if l, ok := m.labels.Load(stream); ok {
		return l.(labels)
	}
	name := streamKey.String(stream)
	l := labels{
		stream: metric.WithAttributeSet(attribute.NewSet(name)),
		sent: metric.WithAttributeSet(attribute.NewSet(name,
			attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.name", "publish"))),
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
	m.faults.Add(context.Background(), 1, metric.WithAttributes(streamKey.String(stream), classKey.String(faultClass(why))))
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
		leading := int64(0)
		if r.Leading() {
			leading = 1
		}
		o.ObserveInt64(m.leading, leading)
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
	}, m.leading, m.term, m.rows, m.unpublished, m.parked, m.age)
	if err != nil {
		r.log.Warn("relay is not measured", "reason", err)
		return func() {}
	}
	return func() { _ = registered.Unregister() }
}
