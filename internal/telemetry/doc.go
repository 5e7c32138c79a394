// Package telemetry is the one place that makes spans and knows the names of what
// is traced and measured. docs/TELEMETRY.md and docs/METRICS.md tell what they
// mean to an operator.
//
// The names are those of OpenTelemetry's semantic conventions for messaging,
// version 1.43 (status: development); what they have no name for begins with
// "messaging.nats." on spans and with "dv." in metrics. A change of a name is a
// change of the API.
//
// Without an SDK nothing is made: a [Tracer] looks whether somebody listens before
// it does anything else, which takes a few nanoseconds and allocates nothing. An
// SDK that is installed later is noticed. OpenTelemetry's instrumentation by eBPF,
// which attaches to spans of the API without an SDK, sees none for that reason.
package telemetry
