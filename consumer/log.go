package consumer

import (
	"context"
	"errors"
	"log/slog"

	"codeberg.org/dataverket/messaging/envelope"
)

// logFailure writes the one line about a message that was not simply handled:
// identity, correlation and attempt, never the payload. The error's text is
// foreign and therefore bounded.
func (c *Consumer) logFailure(ctx context.Context, j *job, text string, v verdict, more ...any) {
	attrs := []any{
		"durable", c.cfg.Consumer.Durable, "subject", clip(j.subject, maxErrorText),
		"stream", j.m.stream, "sequence", j.m.sequence, "attempt", j.m.delivered,
	}
	attrs = append(attrs, idAttrs(j.envelope, j.m.header())...)
	if id := j.span.TraceID(); id != "" {
		attrs = append(attrs, "span_trace_id", id)
	}
	if d := j.delivery; d != nil && d.Site != "" {
		attrs = append(attrs, "site", clip(d.Site, maxErrorText), "remote", d.Remote)
	}
	if j.envelope != nil && j.envelope.DatacenterID != "" {
		attrs = append(attrs, "datacenter_id", j.envelope.DatacenterID)
	}
	if j.letter != "" {
		attrs = append(attrs, "replay_of", j.letter)
	}
	attrs = append(attrs, more...)
	if v.err != nil {
		attrs = append(attrs, "error", clip(v.err.Error(), maxErrorText))
	}
	if p, ok := errors.AsType[*PanicError](v.err); ok {
		attrs = append(attrs, "stack", string(p.Stack))
	}
	level := slog.LevelWarn
	if v.action == bury || v.action == reject {
		level = slog.LevelError
	}
	c.log.Log(ctx, level, text, attrs...)
}

// idAttrs are the ids that a message is found by in logs and traces: those of the
// envelope, or of one that cannot be read what its headers claim.
func idAttrs(e *envelope.Envelope, h envelope.Header) []any {
	claimed := envelope.OriginFromHeader(h)
	var attrs []any
	switch {
	case e != nil:
		attrs = []any{"type", e.Type, "id", e.ID, "correlation_id", e.CorrelationID}
	case claimed.CorrelationID != "":
		attrs = []any{"correlation_id", claimed.CorrelationID}
	}
	if id, ok := envelope.TraceID(claimed.Traceparent); ok {
		attrs = append(attrs, "trace_id", id)
	}
	return attrs
}
