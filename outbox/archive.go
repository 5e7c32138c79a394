package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/nats-io/nats.go"
)

// ArchivedEvent is a row of the outbox that is about to be deleted, as
// RelayConfig.Archive sees it.
type ArchivedEvent struct {
	Stream      string              // the destination stream
	Seq         int64               // its place in the outbox: unique, ascending within one ordering key
	ID          string              // of the envelope, also Nats-Msg-Id
	Subject     string              // that it was published to
	OrderingKey string              // events of one key were published in the order of Seq
	Headers     map[string][]string // as published, without Dv-Site and Nats-Expected-Stream, which the relay adds
	Envelope    []byte              // the bytes that were published
	CreatedAt   time.Time           // when Enqueue stored it, by the database's clock

	// Discarded says that an operator gave it up: it was never published.
	Discarded bool
}

// archiveTimeout bounds one call of the archive. A hook that hangs must become
// an alarm, not silence.
const archiveTimeout = 5 * time.Minute

// archive shows events to the hook and returns when they may go.
//
// The hook is foreign code: it runs in a goroutine of its own, which is left
// behind when its context has ended and it does not return. It must not keep a
// term, and thereby the lease, from ending.
func (k *retention) archive(ctx context.Context, events []ArchivedEvent) error {
	if len(events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, archiveTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- callArchive(ctx, k.cfg.Archive, events) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(abandonAfter)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("archive of %d events: it does not return: %w", len(events), context.Cause(ctx))
	}
}

// callArchive calls the hook; a panic is an error.
func callArchive(ctx context.Context, hook func(context.Context, []ArchivedEvent) error, events []ArchivedEvent) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("archive of %d events: it panicked: %v", len(events), p)
		}
	}()
	if err := hook(ctx, events); err != nil {
		return fmt.Errorf("archive of %d events: %w", len(events), err)
	}
	return nil
}

// What a row is archived with. A row that stays sends no payload.
const (
	archivedColumns = `, e.id, e.subject, e.headers, e.envelope, e.created_at`
	archivedPayload = `, e.stream, e.id, e.subject, e.ordering_key, e.created_at,
       case when e.doomed then e.headers end, case when e.doomed then e.envelope end,
       coalesce((select true from {{schema}}.outbox_discarded d where d.stream = e.stream and d.seq = e.seq and d.id = e.id), false)`
)

// archivedRow is where a row is scanned into.
type archivedRow struct {
	ArchivedEvent
	id      pgtype.UUID
	headers *string
}

func (r *archivedRow) columns() []any {
	return []any{&r.Stream, &r.id, &r.Subject, &r.OrderingKey, &r.CreatedAt, &r.headers, &r.Envelope, &r.Discarded}
}

func (r *archivedRow) size() int {
	return len(r.Envelope) + len(*r.headers) + len(r.Subject) + len(r.OrderingKey)
}

// event completes what was scanned. Headers that are not made of lines cannot
// have been published; an operator discarded them.
func (r *archivedRow) event(seq int64) ArchivedEvent {
	e := r.ArchivedEvent
	e.Seq, e.ID = seq, (&row{id: r.id}).uuid()
	if o := (outgoing{msg: nats.Msg{Header: nats.Header{}}}); o.resetHeader(*r.headers) == nil {
		e.Headers = o.msg.Header
	}
	return e
}
