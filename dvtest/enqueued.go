package dvtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
	"codeberg.org/dataverket/messaging/subject"
)

// Querier is what the outbox is read through: a *pgxpool.Pool or *pgx.Conn sees
// what is committed, a pgx.Tx also what that transaction has enqueued so far.
type Querier interface {
	// Query is that of pgx.
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Enqueued is a message as it is stored in the outbox.
type Enqueued[T any] struct {
	// Envelope is what will be published.
	Envelope *envelope.Envelope
	// Data is its decoded payload.
	Data T
	// Subject and Stream are where it will be published, OrderingKey is what it
	// keeps its order within.
	Subject     subject.Subject
	Stream      string
	OrderingKey string
	// Header holds the headers that it will be published with, but Dv-Site, which
	// the relay adds.
	Header envelope.Header
}

// Message returns e as [Deliver] takes it: what one service enqueued is what the
// handler of another gets.
func (e Enqueued[T]) Message() envelope.Message {
	return envelope.Message{
		Subject: e.Subject, OrderingKey: e.OrderingKey, Envelope: e.Envelope,
		Traceparent: e.Header.Get(envelope.HeaderTraceparent),
	}
}

// RequireEnqueued fails the test unless exactly one message of type t that fits
// every match is in the outbox, and returns it. It looks once and does not wait:
// what Enqueue stored is there when it returns.
//
// Through a pool it sees committed transactions only, so it also shows that the
// code under test commits; through the test's own transaction it sees what that
// has enqueued so far. It looks at the table and not at the broker: whether a
// message is published yet makes no difference.
//
// A failure lists what is enqueued, by type and resource, and how the nearest
// message differs. Data is never printed.
func RequireEnqueued[T any](tb testing.TB, q Querier, t envelope.Type[T], match ...Match) Enqueued[T] {
	tb.Helper()
	s := newSearch(t, match)
	rows := s.read(tb, q)
	hits := s.hits(rows)
	switch len(hits) {
	case 0:
		tb.Fatalf("dvtest: not enqueued: %s\n%s", s, s.report(rows))
	case 1:
	default:
		tb.Fatalf("dvtest: enqueued %d times, want once: %s\n%snarrow it with ForResource, InCorrelation, CausedBy or Where if all of them are right",
			len(hits), s, list("these match", hits))
	}
	return enqueued[T](tb, hits[0])
}

// RequireNotEnqueued fails the test if a message of type t that fits every match
// is in the outbox. Like [RequireEnqueued] it looks once; through a pool, a
// transaction that is rolled back or still open has enqueued nothing.
func RequireNotEnqueued[T any](tb testing.TB, q Querier, t envelope.Type[T], match ...Match) {
	tb.Helper()
	s := newSearch(t, match)
	if hits := s.hits(s.read(tb, q)); len(hits) > 0 {
		tb.Fatalf("dvtest: enqueued, but must not be: %s\n%s", s, list("these match", hits))
	}
}

// enqueued is the result for one row.
func enqueued[T any](tb testing.TB, r *enqueuedRow) Enqueued[T] {
	tb.Helper()
	e := Enqueued[T]{Envelope: r.envelope, Stream: r.stream, OrderingKey: r.key}
	var err error
	if e.Subject, err = subject.Parse(r.subject); err != nil {
		tb.Fatalf("dvtest: message %s is enqueued for a bad subject: %v", r.id, err)
	}
	if e.Header, err = envelope.UnmarshalHeader(r.header); err != nil {
		tb.Fatalf("dvtest: message %s is enqueued with bad headers: %v", r.id, err)
	}
	e.Data, _ = r.data.(T) // a hit has its data
	return e
}
