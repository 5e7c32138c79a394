package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Discarded is a message that an operator gave up: no relay publishes it, also
// when the cursor goes back.
type Discarded struct {
	Stream      string    `json:"stream"`
	Key         string    `json:"key"`
	ID          string    `json:"id"`
	Seq         int64     `json:"seq"` // of its row in outbox_events
	Subject     string    `json:"subject"`
	Cause       string    `json:"cause"` // why it could not be stored
	DiscardedAt time.Time `json:"discarded_at,omitzero"`
	By          string    `json:"by"`
	Reason      string    `json:"reason"`
}

// ReleaseParked lets a parked key go on, for example after the limit of the
// stream was raised: the relay that leads notices within seconds, publishes what
// is held in order, the head first, and then the key is parked no longer. If the
// head still cannot be stored, the key is held again, with the new cause. It
// works on the database alone.
//
// by ("operator:ola") and reason are required and recorded in outbox_decisions.
// It returns the key as it is now. Errors: ErrNotParked, and *ParkedError where
// somebody released the key already or discarded its head.
func ReleaseParked(ctx context.Context, pool *pgxpool.Pool, schema, stream, key, by, reason string) (Parked, error) {
	const act = "release key"
	quoted, err := operatorArgs(act, schema, arg{"stream", stream}, arg{"key", key}, arg{"by", by}, arg{"reason", reason})
	if err != nil {
		return Parked{}, err
	}
	var p Parked
	err = decide(ctx, pool, func(tx pgx.Tx) error {
		if p, err = readParked(ctx, tx, quoted, stream, key, "for update"); err != nil {
			return err
		}
		return release(ctx, tx, quoted, &p, "release", by, reason)
	})
	if err != nil {
		return Parked{}, fmt.Errorf("outbox: %s %q of %s: %w", act, key, stream, explain(err))
	}
	return p, nil
}

// release marks the key of a locked row as released, and records who did that.
func release(ctx context.Context, tx pgx.Tx, quoted string, p *Parked, act, by, reason string) error {
	if p.State == ParkedReleased {
		return &ParkedError{*p}
	}
	err := tx.QueryRow(ctx, inSchema(quoted, `
update {{schema}}.outbox_parked set released_at = clock_timestamp(), released_by = $3, reason = $4
 where stream = $1 and ordering_key = $2 returning released_at`), p.Stream, p.Key, by, reason).Scan(&p.ReleasedAt)
	if err != nil {
		return err
	}
	p.State, p.ReleasedBy, p.Reason = ParkedReleased, by, reason
	return record(ctx, tx, quoted, p, act)
}

// record writes down what was decided about a key.
func record(ctx context.Context, tx pgx.Tx, quoted string, p *Parked, act string) error {
	_, err := tx.Exec(ctx, inSchema(quoted, `
insert into {{schema}}.outbox_decisions (stream, ordering_key, act, seq, id, subject, cause, decided_by, reason)
values ($1, $2, $3, $4, $5::text::uuid, $6, $7, $8, $9)`), p.Stream, p.Key, act, p.Seq, p.ID, p.Subject, p.Cause, p.ReleasedBy, p.Reason)
	return err
}

// ReleaseAllParked is ReleaseParked for every key of a stream that is held, at
// once. It returns how many there were. ErrNotParked where there is none.
func ReleaseAllParked(ctx context.Context, pool *pgxpool.Pool, schema, stream, by, reason string) (int64, error) {
	const act = "release all keys"
	quoted, err := operatorArgs(act, schema, arg{"stream", stream}, arg{"by", by}, arg{"reason", reason})
	if err != nil {
		return 0, err
	}
	tag, err := pool.Exec(ctx, inSchema(quoted, releaseAllSQL), stream, by, reason)
	switch {
	case err != nil:
		return 0, fmt.Errorf("outbox: %s of %s: %w", act, stream, explain(err))
	case tag.RowsAffected() == 0:
		return 0, fmt.Errorf("outbox: %s of %s: %w", act, stream, ErrNotParked)
	}
	return tag.RowsAffected(), nil
}

// releaseAllSQL locks in the order of the keys, so that two operators do not
// deadlock.
const releaseAllSQL = `
with held as (
  select stream, ordering_key, seq, id, subject, cause from {{schema}}.outbox_parked
   where stream = $1 and released_at is null order by ordering_key for update
), noted as (
  insert into {{schema}}.outbox_decisions (stream, ordering_key, act, seq, id, subject, cause, decided_by, reason)
  select stream, ordering_key, 'release', seq, id, subject, cause, $2, $3 from held
)
update {{schema}}.outbox_parked p
   set released_at = clock_timestamp(), released_by = $2, reason = $3
  from held h where p.stream = h.stream and p.ordering_key = h.ordering_key
` + durable

// DiscardParked gives up the head of a parked key and lets the key go on behind
// it. The message is never published, also when the cursor goes back; its row
// stays until retention removes it. There is no way back.
//
// The message is named by its id, so that nobody discards another head than the
// one that was looked at. by and reason are required and recorded. Errors:
// ErrHeadChanged, and *ParkedError where somebody released the key meanwhile:
// the relay may be publishing the message now.
func DiscardParked(ctx context.Context, pool *pgxpool.Pool, schema, id, by, reason string) (Discarded, error) {
	const act = "discard message"
	quoted, err := operatorArgs(act, schema, arg{"id", id}, arg{"by", by}, arg{"reason", reason})
	_, idErr := parseID(act, id)
	if err := errors.Join(err, idErr); err != nil {
		return Discarded{}, err
	}
	var d Discarded
	err = decide(ctx, pool, func(tx pgx.Tx) error {
		p, err := lockHead(ctx, tx, quoted, id)
		if err != nil {
			return err
		}
		if err := release(ctx, tx, quoted, &p, "discard", by, reason); err != nil {
			return err
		}
		d, err = discard(ctx, tx, quoted, p)
		return err
	})
	if err != nil {
		return Discarded{}, fmt.Errorf("outbox: %s %s: %w", act, id, explain(err))
	}
	return d, nil
}

// lockHead locks the parked key whose head is the message. A head that changes
// while the lock is waited for is not found.
func lockHead(ctx context.Context, tx pgx.Tx, quoted, id string) (Parked, error) {
	rows, err := tx.Query(ctx, inSchema(quoted, `
select `+parkedColumns+` from {{schema}}.outbox_parked p where p.id = $1::text::uuid order by p.stream, p.ordering_key limit 1 for update`), id)
	if err != nil {
		return Parked{}, err
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanParked)
	if !errors.Is(err, pgx.ErrNoRows) {
		return p, err
	}
	var by string
	var at time.Time
	err = tx.QueryRow(ctx, inSchema(quoted, `
select discarded_by, discarded_at from {{schema}}.outbox_discarded where id = $1::text::uuid limit 1`), id).Scan(&by, &at)
	switch {
	case err == nil:
		return Parked{}, fmt.Errorf("%s discarded it at %s: %w", by, at.UTC().Format(time.RFC3339), ErrHeadChanged)
	case errors.Is(err, pgx.ErrNoRows):
		err = ErrHeadChanged
	}
	return Parked{}, err
}

// discard records the head of a key as given up. A row of another message with
// the same number is one from before the sequence was set back.
func discard(ctx context.Context, tx pgx.Tx, quoted string, p Parked) (Discarded, error) {
	d := Discarded{
		Stream: p.Stream, Key: p.Key, ID: p.ID, Seq: p.Seq, Subject: p.Subject, Cause: p.Cause,
		DiscardedAt: p.ReleasedAt, By: p.ReleasedBy, Reason: p.Reason,
	}
	_, err := tx.Exec(ctx, inSchema(quoted, `
insert into {{schema}}.outbox_discarded (stream, id, seq, ordering_key, subject, cause, discarded_at, discarded_by, reason)
values ($1, $2::text::uuid, $3, $4, $5, $6, $7, $8, $9)
on conflict (stream, seq) do update
   set id = excluded.id, ordering_key = excluded.ordering_key, subject = excluded.subject, cause = excluded.cause,
       discarded_at = excluded.discarded_at, discarded_by = excluded.discarded_by, reason = excluded.reason`),
		d.Stream, d.ID, d.Seq, d.Key, d.Subject, d.Cause, d.DiscardedAt, d.By, d.Reason)
	return d, err
}

// ListDiscarded returns the messages that were given up and whose rows are still
// retained, the newest first. stream "" is any; limit is 1 to 10,000, 0 is
// 1,000.
func ListDiscarded(ctx context.Context, pool *pgxpool.Pool, schema, stream string, limit int) ([]Discarded, error) {
	const act = "list discarded messages"
	quoted, err := operatorArgs(act, schema)
	limit, limitErr := listLimit(act, limit)
	if err := errors.Join(err, limitErr); err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, inSchema(quoted, `
select stream, ordering_key, id::text, seq, subject, cause, discarded_at, discarded_by, reason
  from {{schema}}.outbox_discarded where $1 = '' or stream = $1
 order by discarded_at desc, stream, seq limit $2`), stream, limit)
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", act, explain(err))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Discarded])
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", act, explain(err))
	}
	return all, nil
}
