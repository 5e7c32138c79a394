package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/internal/pass"
	"codeberg.org/dataverket/messaging/subject"
	"codeberg.org/dataverket/messaging/topology"
)

// Bounds of a read, unless the Query says otherwise.
const (
	DefaultMax     = 1000             // of Query.Max
	DefaultMaxRead = 100_000          // of Query.MaxRead
	DefaultTimeout = 30 * time.Second // of Query.Timeout
)

const (
	// requestTimeout bounds each single request to the server.
	requestTimeout = 5 * time.Second
	// bodiesPage is how many messages wait in memory: 32 MiB in the worst case.
	bodiesPage = 64
)

// Query says what is read, and how much of it at most.
type Query struct {
	// Filter is which subjects. Required by Read; by default those of the type in
	// ReadAs.
	Filter subject.Filter
	// Stream is what is read. Default: the stream that topology declares for the
	// filter, such as DV_MASKIN_EVT. It is needed for a copy from another site.
	Stream string

	// Resource, CorrelationID and TenantID are compared with the envelope as a
	// whole; Resource is its subject, the default ordering key. The server cannot
	// look for them, so the messages of the subject are read, and MaxRead counts
	// them all. A message that does not decode matches none of them: whose it is, is
	// not known. Default: any.
	Resource      string
	CorrelationID string
	TenantID      string

	// From is the sequence to begin with. Default: the oldest that is there.
	From uint64
	// Since is the time at or after which the first message was stored, by the
	// server's clock; not beside From. Default: the oldest that is there.
	Since time.Time
	// Until ends the read at the first message that was stored then or later.
	// Default: what was stored when the read began.
	Until time.Time

	// Max bounds how many messages are yielded. Default: DefaultMax.
	Max int
	// MaxRead bounds how many messages are read to find them. Default:
	// DefaultMaxRead.
	MaxRead int
	// Timeout bounds the whole read, the time in the body of the loop included.
	// Default: DefaultTimeout.
	Timeout time.Duration
}

// validate returns every fault of q at once.
func (q Query) validate() error {
	var faults []error
	if q.Filter.IsZero() {
		faults = append(faults, &FieldError{"Query.Filter", "is empty: say which subjects, as subject.EventsOf(subject.Maskin)"})
	}
	if q.From > 0 && !q.Since.IsZero() {
		faults = append(faults, &FieldError{"Query.From", "stands beside Since: a read has one beginning"})
	}
	if !q.Until.IsZero() && !q.Since.Before(q.Until) {
		faults = append(faults, &FieldError{"Query.Until", "is not after Since: nothing can lie between them"})
	}
	for _, n := range []struct {
		field string
		value int64
	}{{"Query.Max", int64(q.Max)}, {"Query.MaxRead", int64(q.MaxRead)}, {"Query.Timeout", int64(q.Timeout)}} {
		if n.value < 0 {
			faults = append(faults, &FieldError{n.field, "is negative: leave it zero for the default"})
		}
	}
	if q.Stream == "" && !q.Filter.IsZero() && streamOf(q.Filter) == "" {
		faults = append(faults, &FieldError{"Query.Stream", "is empty, and the filter is not of the commands, events or task events of one service: say which stream"})
	}
	return errors.Join(faults...)
}

// withDefaults fills what was left zero.
func (q Query) withDefaults() Query {
	q.Stream = cmp.Or(q.Stream, streamOf(q.Filter))
	q.Max = cmp.Or(q.Max, DefaultMax)
	q.MaxRead = cmp.Or(q.MaxRead, DefaultMaxRead)
	q.Timeout = cmp.Or(q.Timeout, DefaultTimeout)
	return q
}

// streamOf returns the stream that topology declares for f, "" for none. Dead
// letters are package dlq's.
func streamOf(f subject.Filter) string {
	if subject.TaskEvents().Covers(f) {
		return topology.StreamName(subject.Plattform, topology.ClassTaskEvents) // of whatever service
	}
	for _, s := range subject.Services() {
		switch {
		case subject.EventsOf(s).Covers(f):
			return topology.StreamName(s, topology.ClassEvents)
		case subject.CommandsOf(s).Covers(f):
			return topology.StreamName(s, topology.ClassCommands)
		}
	}
	return ""
}

// matches reports whether q lets an envelope through, nil for what is none.
func (q Query) matches(e *envelope.Envelope) bool {
	if e == nil {
		return q.Resource+q.CorrelationID+q.TenantID == ""
	}
	return (q.Resource == "" || q.Resource == e.Subject) &&
		(q.CorrelationID == "" || q.CorrelationID == e.CorrelationID) &&
		(q.TenantID == "" || q.TenantID == e.TenantID)
}

// pass returns the reading of stream that q asks for.
func (q Query) pass(stream jetstream.Stream) pass.Pass {
	p := pass.Pass{
		Stream: stream, Purpose: "history", Filters: []string{q.Filter.String()},
		Page: bodiesPage, Timeout: requestTimeout,
	}
	return beginning(p, q.From, q.Since)
}

// beginning sets where p begins; at the oldest message if neither is set.
func beginning(p pass.Pass, from uint64, since time.Time) pass.Pass {
	switch {
	case from > 0:
		p.Policy, p.From = jetstream.DeliverByStartSequencePolicy, from
	case !since.IsZero():
		p.Policy, p.Since = jetstream.DeliverByStartTimePolicy, since
	default:
		p.Policy = jetstream.DeliverAllPolicy
	}
	return p
}

// open looks a stream up.
func open(ctx context.Context, js jetstream.JetStream, name string) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("history: %w: %s", ErrNoStream, name)
	}
	if err != nil {
		return nil, fmt.Errorf("history: look up stream %s: %w", name, err)
	}
	return stream, nil
}
