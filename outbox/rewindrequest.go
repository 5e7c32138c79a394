package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Anchor is an earlier cursor of a stream: a moment that a rewind can go back to.
type Anchor struct {
	At            time.Time `json:"at"`             // until when it was the cursor; database time
	AckedSequence int64     `json:"acked_sequence"` // the newest message in the stream then
}

// RewindRequest asks for what was published to be published again, with the same
// ids and in order: after consumers, or a copy at another site, lost what they
// had. Streams drop what they still remember, inboxes absorb what was handled.
type RewindRequest struct {
	// Stream is the destination stream. Required.
	Stream string
	// Key limits the rewind to one ordering key; the others go on undisturbed.
	// Default "": the whole stream.
	Key string
	// Since is the moment from which on everything is published again: what was
	// published before goes along as far as the nearest anchor demands. Where no
	// anchor is as old, or a parked key was released since (with Key: that key),
	// everything retained is. Required, unless All is set.
	Since time.Time
	// All publishes everything again that is still in the outbox. Default false.
	All bool
	// By is who asks, such as "operator:ola". Required by RequestRewind.
	By string
	// Reason is why. Required by RequestRewind.
	Reason string
}

// check returns every fault of r at once.
func (r RewindRequest) check(act, schema string, args ...arg) (quoted string, err error) {
	quoted, err = operatorArgs(act, schema, append([]arg{{"stream", r.Stream}}, args...)...)
	switch {
	case r.Since.IsZero() && !r.All:
		err = errors.Join(err, fmt.Errorf("outbox: %s: neither Since nor All is given; say how far to go back", act))
	case !r.Since.IsZero() && r.All:
		err = errors.Join(err, fmt.Errorf("outbox: %s: both Since and All are given; choose one", act))
	}
	return quoted, err
}

// since is the parameter of the statements; nil is the beginning.
func (r RewindRequest) since() *time.Time {
	if r.All {
		return nil
	}
	return &r.Since
}

// what names the target in errors.
func (r RewindRequest) what() string {
	if r.Key == "" {
		return r.Stream
	}
	return fmt.Sprintf("key %q of %s", r.Key, r.Stream)
}

// Rewind is a rewind that was asked for.
type Rewind struct {
	Stream      string    `json:"stream"`
	Key         string    `json:"key,omitempty"` // "" is the whole stream
	RequestedAt time.Time `json:"requested_at"`
	Anchor      time.Time `json:"anchor,omitzero"` // that it goes back to; zero: the oldest retained row
	By          string    `json:"by"`
	Reason      string    `json:"reason"`
	DoneAt      time.Time `json:"done_at,omitzero"` // when the relay set the cursor back; zero before
}

// ErrNothingToRewind says that nothing was published since then which is still
// in the outbox, or that no relay ever had a cursor for the stream.
var ErrNothingToRewind = errors.New("nothing that was published since then is still in the outbox")

// RewindPendingError says that a rewind of the stream was asked for already and
// is not carried out yet.
type RewindPendingError struct {
	Rewind Rewind // the one that waits
}

// Error says who asked.
func (e *RewindPendingError) Error() string {
	r := e.Rewind
	return fmt.Sprintf("%s asked for a rewind of %s at %s (%s), which no relay has carried out yet; wait for it",
		r.By, r.Stream, r.RequestedAt.UTC().Format(time.RFC3339), r.Reason)
}

// ListAnchors returns the moments that a rewind of a stream can go back to, the
// newest first. The relay keeps one a second for a minute, one a minute for an
// hour, one an hour for two days and then one a day, as long as it keeps rows.
// Those from before the last release of a parked key are not among them: what
// was released then lies before them.
func ListAnchors(ctx context.Context, pool *pgxpool.Pool, schema, stream string) ([]Anchor, error) {
	const act = "list anchors"
	quoted, err := operatorArgs(act, schema, arg{"stream", stream})
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, inSchema(quoted, `
select a.at, a.acked_sequence
  from {{schema}}.outbox_anchors a join {{schema}}.outbox_state s using (stream)
 where a.stream = $1 and `+usable+`
 order by a.at desc limit $2`), stream, longestList)
	if err != nil {
		return nil, fmt.Errorf("outbox: %s of %s: %w", act, stream, explain(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Anchor])
	if err != nil {
		return nil, fmt.Errorf("outbox: %s of %s: %w", act, stream, explain(err))
	}
	return all, nil
}

// ListRewinds returns the rewinds of whole streams that were asked for, the
// newest 100 first. stream "" is any. Those of single keys are decisions about a
// key, see ParkedDetails.
func ListRewinds(ctx context.Context, pool *pgxpool.Pool, schema, stream string) ([]Rewind, error) {
	const act = "list rewinds"
	quoted, err := operatorArgs(act, schema)
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, inSchema(quoted, `
select `+rewindColumns+` from {{schema}}.outbox_rewinds r where $1 = '' or r.stream = $1
 order by r.requested_at desc, r.stream limit 100`), stream)
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", act, explain(err))
	}
	all, err := pgx.CollectRows(rows, scanRewind)
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", act, explain(err))
	}
	return all, nil
}

// rewindColumns are those that scanRewind reads.
const rewindColumns = `r.stream, r.requested_at, r.anchor_at, r.requested_by, r.reason, r.done_at`

func scanRewind(row pgx.CollectableRow) (r Rewind, err error) {
	var anchor, done *time.Time
	err = row.Scan(&r.Stream, &r.RequestedAt, &anchor, &r.By, &r.Reason, &done)
	r.Anchor, r.DoneAt = orZero(anchor), orZero(done)
	return r, err
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// obstacle returns why the rewind cannot be asked for now, or nil.
func (r RewindRequest) obstacle(ctx context.Context, tx pgx.Tx, quoted string) error {
	if r.Key != "" {
		p, err := readParked(ctx, tx, quoted, r.Stream, r.Key, "")
		switch {
		case errors.Is(err, ErrNotParked):
			return nil
		case err != nil:
			return err
		}
		return &ParkedError{p}
	}
	rows, err := tx.Query(ctx, inSchema(quoted, `
select `+rewindColumns+` from {{schema}}.outbox_rewinds r where r.stream = $1 and r.done_at is null limit 1`), r.Stream)
	if err != nil {
		return err
	}
	pending, err := pgx.CollectExactlyOneRow(rows, scanRewind)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return &RewindPendingError{pending}
}

// RequestRewind asks the relay that leads to publish again what was published
// since a moment; it notices within seconds. It works on the database alone. The
// newest anchor that is not later than the moment decides, so that rather too
// much is sent again than too little.
//
// The rewind of a whole stream sets its cursor back. That of one key parks the
// key at its first row since then, already released: the relay publishes its
// rows in order, and meanwhile what is new of the key waits. Messages that were
// discarded, and those of parked keys, stay where they are.
//
// Both are recorded, in outbox_rewinds or outbox_decisions. Errors:
// ErrNothingToRewind, *RewindPendingError for a stream, *ParkedError for a key
// that is parked already.
func RequestRewind(ctx context.Context, pool *pgxpool.Pool, schema string, r RewindRequest) (Rewind, error) {
	const act = "request a rewind"
	quoted, err := r.check(act, schema, arg{"by", r.By}, arg{"reason", r.Reason})
	if err != nil {
		return Rewind{}, err
	}
	asked := Rewind{Stream: r.Stream, Key: r.Key, By: r.By, Reason: r.Reason}
	err = decide(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, pinSearch); err != nil {
			return err
		}
		head, err := readRewindHead(ctx, tx, quoted, r)
		if err != nil {
			return err
		}
		asked.Anchor = orZero(head.anchor)
		if r.Key == "" {
			asked.RequestedAt, err = r.askStream(ctx, tx, quoted, head.anchor)
		} else {
			asked.RequestedAt, err = r.askKey(ctx, tx, quoted, head)
		}
		if errors.Is(err, pgx.ErrNoRows) { // somebody was there first
			err = r.obstacle(ctx, tx, quoted)
			if err == nil {
				err = errors.New("somebody else asked at the same moment, and it was carried out already; look again")
			}
		}
		return err
	})
	if err != nil {
		return Rewind{}, fmt.Errorf("outbox: %s of %s: %w", act, r.what(), explain(err))
	}
	return asked, nil
}

// askStream returns no row where a rewind of the stream is pending.
func (r RewindRequest) askStream(ctx context.Context, tx pgx.Tx, quoted string, anchor *time.Time) (at time.Time, err error) {
	return at, tx.QueryRow(ctx, inSchema(quoted, `
insert into {{schema}}.outbox_rewinds (stream, anchor_at, requested_by, reason) values ($1, $2, $3, $4)
on conflict do nothing returning requested_at`), r.Stream, anchor, r.By, r.Reason).Scan(&at)
}

// askKey returns no row where the key is parked.
func (r RewindRequest) askKey(ctx context.Context, tx pgx.Tx, quoted string, head rewindHead) (at time.Time, err error) {
	p := Parked{
		Stream: r.Stream, Key: r.Key, ID: head.id, Seq: head.seq, Subject: head.subject,
		Cause: rewindCause + r.Reason, ReleasedBy: r.By, Reason: r.Reason,
	}
	err = tx.QueryRow(ctx, inSchema(quoted, `
insert into {{schema}}.outbox_parked (stream, ordering_key, seq, id, subject, cause, released_at, released_by, reason)
values ($1, $2, $3, $4::text::uuid, $5, $6, clock_timestamp(), $7, $8)
on conflict do nothing returning released_at`),
		p.Stream, p.Key, p.Seq, p.ID, p.Subject, p.Cause, p.ReleasedBy, p.Reason).Scan(&at)
	if err != nil {
		return at, err
	}
	return at, record(ctx, tx, quoted, &p, "rewind")
}
