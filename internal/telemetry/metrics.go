package telemetry

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Kind is what a metric is.
type Kind string

// Gauge, Counter and Histogram are the kinds of metrics.
const (
	Gauge     Kind = "gauge"
	Counter   Kind = "counter"
	Histogram Kind = "histogram"
)

// Metric is one thing that is measured. The unit "s" and those in braces are the
// only ones: of the unit "1" the translation to Prometheus would make the suffix
// _ratio.
type Metric struct {
	// Name is that of the instrument.
	Name string
	// Kind is what instrument it is.
	Kind Kind
	// Unit is as OpenTelemetry writes it.
	Unit string
	// Description says what it means.
	Description string
}

// OutboxSent, OutboxDuplicates, OutboxRewinds, OutboxFaults, OutboxDeleted,
// OutboxUnpublished, OutboxAge, OutboxParked, OutboxRows, OutboxLeading, OutboxReady
// and OutboxTerm are what the relay measures, as their descriptions say. They are
// constant.
var (
	OutboxSent        = Metric{"messaging.client.sent.messages", Counter, "{message}", "Messages of the outbox that their stream acknowledged."}
	OutboxDuplicates  = Metric{"dv.outbox.duplicates", Counter, "{message}", "Messages that their stream held already: sent again after a fault, a fail-over or a rewind."}
	OutboxRewinds     = Metric{"dv.outbox.rewinds", Counter, "{rewind}", "Times that a cursor went back: the broker had lost messages, or an operator asked for it."}
	OutboxFaults      = Metric{"dv.outbox.faults", Counter, "{fault}", "Times that a stream was held back, by the class of the fault."}
	OutboxDeleted     = Metric{"dv.outbox.deleted", Counter, "{message}", "Published rows that retention deleted."}
	OutboxUnpublished = Metric{"dv.outbox.unpublished", Gauge, "{message}", "Committed messages that are not published yet; counted up to 10,000."}
	OutboxAge         = Metric{"dv.outbox.oldest.age", Gauge, "s", "Age of the oldest committed message that is not published yet; 0 without one."}
	OutboxParked      = Metric{"dv.outbox.parked", Gauge, "{key}", "Ordering keys that are held back until an operator decides."}
	OutboxRows        = Metric{"dv.outbox.rows", Gauge, "{message}", "Rows in the outbox, published ones that are retained included; an estimate."}
	OutboxLeading     = Metric{"dv.outbox.leading", Gauge, "{instance}", "1 if this instance publishes, else 0."}
	OutboxReady       = Metric{"dv.outbox.ready", Gauge, "{instance}", "1 if this instance can do its part, else 0."}
	OutboxTerm        = Metric{"dv.outbox.lease.term", Gauge, "{term}", "The term of the lease; it grows with each change of leadership."}
)

// Consumed, ProcessDuration, ConsumerRedelivered, ConsumerRetries, ConsumerDead,
// ConsumerInFlight, ConsumerParked, ConsumerActive, ConsumerReady, ConsumerBreaker,
// ConsumerPending, ConsumerAckPending, ConsumerUnreadAge and ConsumerUnreadLimit are
// what a consumer measures, as their descriptions say. They are constant.
var (
	Consumed            = Metric{"messaging.client.consumed.messages", Counter, "{message}", "Deliveries of the durable, repeated ones included."}
	ProcessDuration     = Metric{"messaging.process.duration", Histogram, "s", "Time that a handler took for a message."}
	ConsumerRedelivered = Metric{"dv.consumer.redeliveries", Counter, "{message}", "Deliveries of messages that had been delivered before."}
	ConsumerRetries     = Metric{"dv.consumer.retries", Counter, "{message}", "Failed attempts that will be tried again."}
	ConsumerDead        = Metric{"dv.consumer.dead_letters", Counter, "{message}", "Messages that became dead letters, by class."}
	ConsumerInFlight    = Metric{"dv.consumer.in_flight", Gauge, "{message}", "Messages that this instance received and has not settled."}
	ConsumerParked      = Metric{"dv.consumer.parked", Gauge, "{message}", "Messages of the durable that wait in the inbox's database because of a long delay."}
	ConsumerActive      = Metric{"dv.consumer.active", Gauge, "{instance}", "1 if this instance holds the lease of an ordered durable, else 0; absent without an order."}
	ConsumerReady       = Metric{"dv.consumer.ready", Gauge, "{instance}", "1 if this instance can do its part, else 0."}
	ConsumerBreaker     = Metric{"dv.consumer.breaker.open", Gauge, "{instance}", "1 while this instance tries one message at a time because many failed and none succeeded, else 0."}
	ConsumerPending     = Metric{"dv.consumer.pending", Gauge, "{message}", "Messages of the stream that were not yet delivered to the durable."}
	ConsumerAckPending  = Metric{"dv.consumer.ack.pending", Gauge, "{message}", "Messages that were delivered and are not settled, in all instances."}
	ConsumerUnreadAge   = Metric{"dv.consumer.oldest.unread.age", Gauge, "s", "Age of the oldest message that is not settled; 0 without one."}
	ConsumerUnreadLimit = Metric{"dv.consumer.oldest.unread.age.limit", Gauge, "s", "Age at which the stream removes a message, read or not."}
)

// SitesReachable, SitesSilence, SitesBehind, SitesCaughtUpAge, SitesStuck, SitesFull,
// SitesResumed, SitesMissing, SitesOriginLacks, SitesResent and SitesComparedAge are
// what a watcher of flows between sites measures, as their descriptions say. They are
// constant.
var (
	SitesReachable   = Metric{"dv.sites.reachable", Gauge, "{flow}", "1 if the origin of the flow answered the last question, else 0."}
	SitesSilence     = Metric{"dv.sites.silence", Gauge, "s", "Time since this site's server heard of the origin's stream; absent if it never did."}
	SitesBehind      = Metric{"dv.sites.behind", Gauge, "{message}", "Messages that this site lacks, by comparison with the origin; as known last while the link is down."}
	SitesCaughtUpAge = Metric{"dv.sites.caught_up.age", Gauge, "s", "Time since this site was last known to hold all that the origin held; since the watcher's start if it never was."}
	SitesStuck       = Metric{"dv.sites.stuck", Gauge, "{flow}", "1 while the link works and the flow does not, else 0."}
	SitesFull        = Metric{"dv.sites.full", Gauge, "{percent}", "Share of its limits that the stream at this site uses; at 100 copying waits."}
	SitesMissing     = Metric{"dv.sites.missing", Gauge, "{message}", "Messages that the origin held and this site did not, at the last comparison of both; they are sent again."}
	SitesOriginLacks = Metric{"dv.sites.origin_lacks", Gauge, "{message}", "Messages that this site held and the origin did not, at the last comparison of both."}
	SitesComparedAge = Metric{"dv.sites.compared.age", Gauge, "s", "Time since both ends were last compared; since the watcher's start if never."}
	SitesResent      = Metric{"dv.sites.resent", Counter, "{message}", "Messages that the origin sent again at this watcher's word."}
	SitesResumed     = Metric{"dv.sites.resumed", Counter, "{resume}", "Times that this watcher made the stream ask its origin again."}
)

// Metrics returns everything that is measured.
func Metrics() []Metric {
	return []Metric{
		OutboxUnpublished, OutboxAge, OutboxParked, OutboxRows, OutboxLeading, OutboxReady, OutboxTerm,
		OutboxSent, OutboxDuplicates, OutboxRewinds, OutboxFaults, OutboxDeleted,
		ConsumerPending, ConsumerAckPending, ConsumerUnreadAge, ConsumerUnreadLimit, ConsumerParked,
		ConsumerInFlight, ConsumerActive, ConsumerReady, ConsumerBreaker,
		Consumed, ConsumerRedelivered, ConsumerRetries, ConsumerDead, ProcessDuration,
		SitesReachable, SitesSilence, SitesBehind, SitesCaughtUpAge, SitesStuck, SitesFull, SitesResumed,
		SitesMissing, SitesOriginLacks, SitesComparedAge, SitesResent,
	}
}

// Maker makes instruments and collects what goes wrong.
type Maker struct {
	// Meter makes them.
	Meter  metric.Meter
	faults []error
}

// Err returns what went wrong.
func (m *Maker) Err() error { return errors.Join(m.faults...) }

func made[T any](m *Maker, d Metric, instrument T, err error) T {
	if err != nil {
		m.faults = append(m.faults, fmt.Errorf("metric %s: %w", d.Name, err))
	}
	return instrument
}

// Counter makes a counter that is added to.
func (m *Maker) Counter(d Metric) metric.Int64Counter {
	i, err := m.Meter.Int64Counter(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Description))
	return made(m, d, i, err)
}

// Count makes a counter that is read when somebody collects.
func (m *Maker) Count(d Metric) metric.Int64ObservableCounter {
	i, err := m.Meter.Int64ObservableCounter(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Description))
	return made(m, d, i, err)
}

// Gauge makes a gauge of whole numbers.
func (m *Maker) Gauge(d Metric) metric.Int64ObservableGauge {
	i, err := m.Meter.Int64ObservableGauge(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Description))
	return made(m, d, i, err)
}

// Seconds makes a gauge of a time.
func (m *Maker) Seconds(d Metric) metric.Float64ObservableGauge {
	i, err := m.Meter.Float64ObservableGauge(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Description))
	return made(m, d, i, err)
}

// Durations makes a histogram of times, with the buckets that the conventions
// advise.
func (m *Maker) Durations(d Metric) metric.Float64Histogram {
	i, err := m.Meter.Float64Histogram(d.Name, metric.WithUnit(d.Unit), metric.WithDescription(d.Description),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	return made(m, d, i, err)
}

// StreamLabels are the labels of what is told of a stream.
func StreamLabels(stream string) []attribute.KeyValue {
	return []attribute.KeyValue{keyStream.String(stream)}
}

// SentLabels are those of OutboxSent.
func SentLabels(stream string) []attribute.KeyValue {
	return append(StreamLabels(stream), keySystem.String(system), keyOperation.String(opSend))
}

// DurableLabels are those of what is told of a durable.
func DurableLabels(stream, durable string) []attribute.KeyValue {
	return append(StreamLabels(stream), keyDurable.String(durable))
}

// FlowLabels are those of what is told of a flow that ends in a stream.
func FlowLabels(stream, from string) []attribute.KeyValue {
	return append(StreamLabels(stream), keySourceSite.String(from))
}

// ConsumedLabels are those of Consumed, whose messages nobody asked for one by one.
func ConsumedLabels(stream, durable string) []attribute.KeyValue {
	return append(DurableLabels(stream, durable), keySystem.String(system), keyOperation.String("receive"))
}

// ProcessLabels are those of ProcessDuration.
func ProcessLabels(stream, durable string) []attribute.KeyValue {
	return append(DurableLabels(stream, durable), keySystem.String(system), keyOperation.String(opProcess))
}

// Class is the label of a class of faults; "" adds none.
func Class(labels []attribute.KeyValue, class string) []attribute.KeyValue {
	if class == "" {
		return labels
	}
	return append(labels[:len(labels):len(labels)], keyErrorType.String(class))
}
