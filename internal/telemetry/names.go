package telemetry

import "go.opentelemetry.io/otel/attribute"

// ScopeOutbox, ScopeConsumer and ScopeSites are scopes of instrumentation: the package whose
// work is traced or measured.
const (
	ScopeOutbox   = "codeberg.org/dataverket/messaging/outbox"
	ScopeConsumer = "codeberg.org/dataverket/messaging/consumer"
	ScopeSites    = "codeberg.org/dataverket/messaging/sites"
)

// Attributes of spans and labels of metrics.
const (
	keySystem        = attribute.Key("messaging.system")
	keyOperation     = attribute.Key("messaging.operation.name")
	keyOperationType = attribute.Key("messaging.operation.type")
	keyDestination   = attribute.Key("messaging.destination.name")
	keyDurable       = attribute.Key("messaging.consumer.group.name")
	keyID            = attribute.Key("messaging.message.id")
	keyCorrelation   = attribute.Key("messaging.message.conversation_id")
	keyBodySize      = attribute.Key("messaging.message.body.size")
	keyBatch         = attribute.Key("messaging.batch.message_count")
	keyErrorType     = attribute.Key("error.type")
	// What the conventions have no name for.
	keyStream     = attribute.Key("messaging.nats.stream")
	keySequence   = attribute.Key("messaging.nats.sequence")
	keyAttempt    = attribute.Key("messaging.nats.attempt")
	keyReplayOf   = attribute.Key("messaging.nats.replay_of")
	keyVerdict    = attribute.Key("messaging.nats.verdict")
	keyDuplicates = attribute.Key("messaging.nats.duplicates")
	keyLetter     = attribute.Key("messaging.nats.dead_letter.id")
	keySourceSite = attribute.Key("messaging.nats.source.site")
	keyClass      = attribute.Key("messaging.nats.dead_letter.class")
	keySite       = attribute.Key("messaging.nats.site")
	keyRemote     = attribute.Key("messaging.nats.remote")
	keyToSite     = attribute.Key("messaging.nats.to_site")
	keyDatacenter = attribute.Key("messaging.nats.datacenter_id")
)

// Names of operations, which begin the names of their spans.
const (
	opCreate  = "create"
	opSend    = "send"
	opProcess = "process"
	opSettle  = "settle" // whose spans begin with the word that is sent
)

// eventDeadLetter is the event on the span of a message that became one.
const eventDeadLetter = "dead_letter"

// system is the messaging system; the conventions have no value for it.
const system = "nats"
