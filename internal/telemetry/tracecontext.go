package telemetry

import (
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"

	"codeberg.org/dataverket/messaging/envelope"
)

// maxLinks bounds the links of one span: exporters cut at about as many, and
// memory has to be bounded.
const maxLinks = 128

// remote reads a traceparent; the zero SpanContext if it is none.
func remote(traceparent string) trace.SpanContext {
	if _, ok := envelope.TraceID(traceparent); !ok {
		return trace.SpanContext{}
	}
	var cfg trace.SpanContextConfig
	var flags [1]byte
	// TraceID has checked that all of it is hexadecimal.
	_, _ = hex.Decode(cfg.TraceID[:], []byte(traceparent[3:35]))
	_, _ = hex.Decode(cfg.SpanID[:], []byte(traceparent[36:52]))
	_, _ = hex.Decode(flags[:], []byte(traceparent[53:55]))
	cfg.TraceFlags, cfg.Remote = trace.TraceFlags(flags[0])&trace.FlagsSampled, true
	return trace.NewSpanContext(cfg)
}

// traceparent writes a context of a trace.
func traceparent(sc trace.SpanContext) string {
	id, span, flags := sc.TraceID(), sc.SpanID(), sc.TraceFlags()&trace.FlagsSampled
	var text [55]byte
	copy(text[:], "00-")
	hex.Encode(text[3:], id[:])
	text[35] = '-'
	hex.Encode(text[36:], span[:])
	text[52] = '-'
	hex.Encode(text[53:], []byte{byte(flags)})
	return string(text[:])
}
