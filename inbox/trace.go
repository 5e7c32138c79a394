package inbox

import (
	"context"
	"errors"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/telemetry"
)

// traceBatch begins the span of messages that are handled in one transaction,
// linked with what each was made in. The consumer that they came from says whether
// and how.
func traceBatch(ctx context.Context, batch []*member) (context.Context, telemetry.Span) {
	first := batch[0].delivery
	return telemetry.ProcessorFrom(batch[0].ctx).ProcessBatch(ctx, first.Subject.String(), len(batch), func(i int) string {
		return batch[i].delivery.Header.Get(envelope.HeaderTraceparent)
	})
}

// traceOne begins the span of a message that is handled alone.
func traceOne(ctx context.Context, d *envelope.Delivery) (context.Context, telemetry.Span) {
	return telemetry.ProcessorFrom(ctx).Process(ctx, telemetry.Message{
		Subject: d.Subject.String(), Envelope: d.Envelope, Size: len(d.Envelope.Data), Sequence: d.Sequence,
		Attempt: d.Attempt, LetterID: d.LetterID, Traceparent: d.Header.Get(envelope.HeaderTraceparent),
		Site: d.Site, Remote: d.Remote,
	})
}

// Classes of what went wrong, for spans.
const (
	faultBatch = "batch_failed"
	faultRetry = "retry"
	faultPanic = "panic"
)

// endOne ends the span of a message that was handled alone; returned says that its
// handler did.
func endOne(s telemetry.Span, err error, returned bool) {
	switch {
	case !returned:
		s.Judged(faultRetry, faultPanic)
	case err == nil:
		s.Judged("ack", "")
	case errors.Is(err, envelope.ErrAlreadyProcessed):
		s.Judged("duplicate", "")
	case envelope.IsPermanent(err):
		s.Judged("dead_letter", string(envelope.ClassPoison))
	default:
		s.Judged(faultRetry, faultRetry)
	}
}
