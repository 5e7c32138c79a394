package consumer

import (
	"context"
	"errors"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// Classes of failed attempts in spans and metrics. A dead letter has its own.
const (
	faultRetry      = "retry"
	faultRetryAfter = "retry_after"
	faultPanic      = "panic"
	faultGoexit     = "goexit"
	faultTimeout    = "timeout"
)

// fault is the class of what went wrong, "" if nothing did.
func (v verdict) fault() string {
	switch v.action {
	case bury:
		return string(v.class)
	case retry:
	default:
		return "" // nobody is to blame for what is given back
	}
	_, panicked := errors.AsType[*PanicError](v.err)
	switch {
	case panicked:
		return faultPanic
	case asksForDelay(v.err):
		return faultRetryAfter
	case errors.Is(v.err, errGoexit):
		return faultGoexit
	case errors.Is(v.err, context.DeadlineExceeded):
		return faultTimeout
	}
	return faultRetry
}

// word names what becomes of a message, for its span.
func (v verdict) word() string {
	switch {
	case v.action == moved, v.elsewhere:
		return "parked"
	case v.duplicate:
		return "duplicate"
	}
	return [...]string{ack: "ack", retry: "retry", bury: "dead_letter", release: "release", reject: "reject", skip: "skip"}[v.action]
}

// trace begins the span of an attempt, and returns the ctx of its handler. One that
// handles its messages together makes their spans itself.
func (c *Consumer) trace(ctx context.Context, j *job) context.Context {
	if !c.traces.On() {
		return ctx
	}
	if j.route.Gathers {
		return telemetry.WithProcessor(ctx, c.traces)
	}
	ctx, j.span = c.traces.Process(ctx, j.known())
	return ctx
}

// traceBurial begins the span of a message that becomes a dead letter without an
// attempt, or whose attempt left none. The ctx that it returns carries the span: a
// route may send something about the dead letter.
func (c *Consumer) traceBurial(ctx context.Context, j *job) context.Context {
	if !j.span.Is() && c.traces.On() {
		_, j.span = c.traces.Process(ctx, j.known())
	}
	return j.span.Around(ctx)
}

// known is what a span tells of a message.
func (j *job) known() telemetry.Message {
	m := telemetry.Message{
		Subject: j.subject, Envelope: j.envelope, Size: len(j.m.raw.Data), Sequence: j.m.sequence,
		Attempt: j.m.delivered, LetterID: j.letter, Traceparent: j.m.header().Get(envelope.HeaderTraceparent),
	}
	if d := j.delivery; d != nil {
		m.Attempt, m.Site, m.Remote = d.Attempt, d.Site, d.Remote
	}
	return m
}

// settlement is the word that the server is told.
func (v verdict) settlement() string {
	switch v.action {
	case retry, release:
		return "nak"
	case bury, reject:
		return "term"
	}
	return "ack"
}

// traceSettlement makes the span of telling the server, where that is wanted. Of a
// parked message it knows nothing any more.
func (c *Consumer) traceSettlement(j *job, v verdict) {
	if c.cfg.SettleSpans && j.m.parked == nil {
		c.traces.Settle(j.span, v.settlement(), j.subject)
	}
}

// traced ends the span of an attempt.
func (j *job) traced(v verdict) {
	if j.span.Is() {
		j.span.Judged(v.word(), v.fault())
		j.span = telemetry.Span{}
	}
}
