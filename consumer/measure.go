package consumer

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// measures are the instruments of one consumer. What it counts anyway is read when
// somebody collects; a message costs what the histogram does, and without an SDK a
// look at it. Safe for concurrent use.
type measures struct {
	provider metric.MeterProvider // as configured, nil for the global one
	meter    metric.Meter
	durable  metric.MeasurementOption
	consumed metric.MeasurementOption
	duration metric.Float64Histogram
	took     map[string][]metric.RecordOption        // by class of fault; read-only
	dead     map[envelope.Class]metric.ObserveOption // read-only
	classes  map[envelope.Class]*atomic.Uint64       // dead letters; the map is read-only
	counts   [4]metric.Int64ObservableCounter        // see observe
	gauges   [7]metric.Int64ObservableGauge          // the same
	ages     [2]metric.Float64ObservableGauge        // the same
}

// faultTypes are the classes of failed attempts, beside those of dead letters. No
// others are made, so that labels stay bounded. It is constant.
var faultTypes = []string{"", faultRetry, faultRetryAfter, faultPanic, faultGoexit, faultTimeout}

// deadClasses is constant.
var deadClasses = []envelope.Class{
	envelope.ClassPoison, envelope.ClassExhausted, envelope.ClassDecode, envelope.ClassSecurity, envelope.ClassCrash,
}

func newMeasures(provider metric.MeterProvider, stream, durable string) (*measures, error) {
	m := &measures{
		provider: provider,
		took:     map[string][]metric.RecordOption{},
		dead:     map[envelope.Class]metric.ObserveOption{},
		classes:  map[envelope.Class]*atomic.Uint64{},
		durable:  metric.WithAttributes(telemetry.DurableLabels(stream, durable)...),
		consumed: metric.WithAttributes(telemetry.ConsumedLabels(stream, durable)...),
	}
	if provider == nil {
		provider = otel.GetMeterProvider()
	}
	m.meter = provider.Meter(telemetry.ScopeConsumer)
	took := func(fault string) {
		m.took[fault] = []metric.RecordOption{metric.WithAttributes(telemetry.Class(telemetry.ProcessLabels(stream, durable), fault)...)}
	}
	for _, fault := range faultTypes {
		took(fault)
	}
	for _, class := range deadClasses {
		took(string(class))
		m.classes[class] = new(atomic.Uint64)
		m.dead[class] = metric.WithAttributes(telemetry.Class(telemetry.DurableLabels(stream, durable), string(class))...)
	}
	maker := telemetry.Maker{Meter: m.meter}
	m.duration = maker.Durations(telemetry.ProcessDuration)
	m.counts = [4]metric.Int64ObservableCounter{
		maker.Count(telemetry.Consumed), maker.Count(telemetry.ConsumerRedelivered),
		maker.Count(telemetry.ConsumerRetries), maker.Count(telemetry.ConsumerDead),
	}
	m.gauges = [7]metric.Int64ObservableGauge{
		maker.Gauge(telemetry.ConsumerInFlight), maker.Gauge(telemetry.ConsumerReady), maker.Gauge(telemetry.ConsumerBreaker),
		maker.Gauge(telemetry.ConsumerParked), maker.Gauge(telemetry.ConsumerActive),
		maker.Gauge(telemetry.ConsumerPending), maker.Gauge(telemetry.ConsumerAckPending),
	}
	m.ages = [2]metric.Float64ObservableGauge{maker.Seconds(telemetry.ConsumerUnreadAge), maker.Seconds(telemetry.ConsumerUnreadLimit)}
	return m, maker.Err()
}

// collected reports whether anybody wants the figures.
func (m *measures) collected() bool { return telemetry.Metered(m.provider) }

// processed records how long a handler took that began then.
func (m *measures) processed(ctx context.Context, begun time.Time, v verdict) {
	if m.duration.Enabled(ctx) {
		m.duration.Record(ctx, time.Since(begun).Seconds(), m.took[v.fault()]...)
	}
}

// buried counts a dead letter.
func (m *measures) buried(class envelope.Class) {
	if n := m.classes[class]; n != nil {
		n.Add(1)
	}
}

// observe reports what c counts and sees whenever somebody collects. It returns
// the function that ends it.
func (m *measures) observe(c *Consumer) (end func()) {
	all := make([]metric.Observable, 0, len(m.counts)+len(m.gauges)+len(m.ages))
	for _, i := range m.counts {
		all = append(all, i)
	}
	for _, i := range m.gauges {
		all = append(all, i)
	}
	for _, i := range m.ages {
		all = append(all, i)
	}
	registered, err := m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		m.observeInstance(c, o)
		m.observeDurable(c, o)
		return nil
	}, all...)
	if err != nil {
		c.log.Warn("consumer: not measured", "durable", c.cfg.Consumer.Durable, "error", err)
		return func() {}
	}
	return func() { _ = registered.Unregister() }
}

// observeInstance reports what this instance did and does.
func (m *measures) observeInstance(c *Consumer, o metric.Observer) {
	s := c.Stats()
	o.ObserveInt64(m.counts[0], int64(c.count.delivered.Load()), m.consumed)
	o.ObserveInt64(m.counts[1], int64(c.count.redelivered.Load()), m.durable)
	o.ObserveInt64(m.counts[2], int64(s.Retried), m.durable)
	for class, n := range m.classes {
		o.ObserveInt64(m.counts[3], int64(n.Load()), m.dead[class])
	}
	o.ObserveInt64(m.gauges[0], int64(s.InFlight), m.durable)
	o.ObserveInt64(m.gauges[1], one(c.Ready() == nil), m.durable)
	o.ObserveInt64(m.gauges[2], one(c.mass.open() != nil), m.durable)
	if c.lot != nil {
		o.ObserveInt64(m.gauges[3], int64(s.Waiting), m.durable)
	}
	if c.order != nil {
		o.ObserveInt64(m.gauges[4], one(s.Active), m.durable)
	}
}

// observeDurable reports what the server said of the durable. What is too old is
// not reported: a gap is true, a number that stands still is not.
func (m *measures) observeDurable(c *Consumer, o metric.Observer) {
	seen := c.lookout.fresh()
	if seen == nil {
		return
	}
	o.ObserveInt64(m.gauges[5], int64(seen.pending), m.durable)
	o.ObserveInt64(m.gauges[6], int64(seen.ackPending), m.durable)
	if seen.known {
		o.ObserveFloat64(m.ages[0], seen.age.Seconds(), m.durable)
	}
	if seen.limit > 0 {
		o.ObserveFloat64(m.ages[1], seen.limit.Seconds(), m.durable)
	}
}

// one is 1 for what holds.
func one(holds bool) int64 {
	if holds {
		return 1
	}
	return 0
}
