package telemetry

import (
	"reflect"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// idle tells a provider that does nothing: the one that stands in OpenTelemetry's
// global place until an SDK is installed, and the no-op ones. It allocates nothing.
//
// The package of its type tells. Asking it for a span or an instrument would, of a
// provider that is none of these, leave one behind.
func idle(provider any) bool {
	t := reflect.TypeOf(provider)
	if t == nil {
		return true
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.PkgPath() {
	case "go.opentelemetry.io/otel/internal/global",
		"go.opentelemetry.io/otel/trace/noop", "go.opentelemetry.io/otel/metric/noop":
		return true
	}
	return false
}

// Metered reports whether somebody collects what is given to provider, or, where
// that is nil, to the global one.
func Metered(provider metric.MeterProvider) bool {
	return !idle(provider) || !idle(otel.GetMeterProvider()) && follows(provider)
}

// follows reports whether a provider is the global one, whatever that will be.
func follows(provider any) bool {
	if provider == nil {
		return true
	}
	t := reflect.TypeOf(provider)
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "go.opentelemetry.io/otel/internal/global"
}
