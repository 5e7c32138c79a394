package inbox

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"codeberg.org/dataverket/messaging/envelope"
)

// The methods of this file and the next make an Inbox a consumer.OrderedStore:
// it decides which instance handles an ordered durable. A consumer calls them; a
// service does not.
//
// # Why a look at the term is enough
//
// A handler's transaction reads the term before it inserts the row of its
// message, and does not lock the lease. So it may commit after a take-over, but
// never out of order: when it read the term, its instance was the only one, and
// had settled all earlier messages of the key. The successor has to settle this
// message before the next one of the key. Either it meets the row, and waits for
// this transaction, or it inserted its own first, and this one finds it. A lock
// of the row held until the commit would add nothing but a queue at one row, and
// a take-over that waits for an instance that hangs.
//
// What hangs would make its successor wait all the same, at the rows of its open
// transactions: for hours, if only its network is gone. So each such transaction
// holds a shared advisory lock, which no one waits for, and a take-over ends the
// sessions that hold it.

// leaseSQL are the statements about leases and held keys.
type leaseSQL struct {
	acquire, evict, renew, release, reached, stands, fence string
	held, hold, unhold                                     string
}

func newLeaseSQL(schema string) leaseSQL {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{{schema}}", schema) }
	return leaseSQL{
		// Durable: a term that a crash takes back would be given twice.
		acquire: in(`
insert into {{schema}}.inbox_leases as l (name, holder, term, expires_at)
values ($1, $2, 1, clock_timestamp() + $3::interval)
on conflict (name) do update
   set holder = excluded.holder, term = l.term + 1, expires_at = excluded.expires_at
 where l.expires_at < clock_timestamp() or l.holder = excluded.holder` + raiseCommit + `, term, delivered`),
		evict: in(`
select count(pg_terminate_backend(pid)) from pg_locks
 where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
   and classid = (hashtextextended($1, 0) >> 32 & 4294967295)::oid
   and objid = (hashtextextended($1, 0) & 4294967295)::oid
   and objsubid = 1 and granted and pid <> pg_backend_pid()`),
		renew: in(`
update {{schema}}.inbox_leases set expires_at = clock_timestamp() + $3::interval
 where name = $1 and term = $2`),
		release: in(`
update {{schema}}.inbox_leases set expires_at = '-infinity'
 where name = $1 and term = $2`),
		reached: in(`
update {{schema}}.inbox_leases set delivered = greatest(delivered, $3)
 where name = $1 and term = $2` + raiseCommit),
		stands: in(`
select exists (select from {{schema}}.inbox_leases where name = $1 and term = $2)`),
		fence: in(`
select exists (select from {{schema}}.inbox_leases where name = $1 and term = $2),
       pg_advisory_xact_lock_shared(hashtextextended($1, 0))`),

		held: in(`
select ordering_key, letter_id, source, message_id::text from {{schema}}.inbox_held_keys where lease = $1`),
		// With a lock: a take-over reads the held keys when it has the lease.
		hold: in(`
insert into {{schema}}.inbox_held_keys as h (lease, ordering_key, letter_id, source, message_id)
select name, $3, $4, $5, $6 from {{schema}}.inbox_leases where name = $1 and term = $2 for share
on conflict (lease, ordering_key) do update
   set letter_id = excluded.letter_id, source = excluded.source, message_id = excluded.message_id` + raiseCommit),
		unhold: in(`
delete from {{schema}}.inbox_held_keys h
 using {{schema}}.inbox_leases l
 where l.name = $1 and l.term = $2 and h.lease = l.name and h.letter_id = $3` + raiseCommit),
	}
}

// queueFence has a transaction that begins fail with envelope.ErrFenced unless the
// lease still stands. It does nothing for the zero value.
func (in *Inbox) queueFence(b *pgx.Batch, f envelope.Fence) {
	if f.Term == 0 {
		return
	}
	b.Queue(in.leases.fence, f.Lease, f.Term).QueryRow(func(row pgx.Row) error {
		var stands bool
		if err := row.Scan(&stands, nil); err != nil || stands {
			return err
		}
		return envelope.ErrFenced
	})
}

// stands fails with envelope.ErrFenced unless f is zero or its lease still stands.
func (in *Inbox) stands(ctx context.Context, f envelope.Fence) (err error) {
	stands := true
	if f.Term != 0 {
		err = in.pool.QueryRow(ctx, in.leases.stands, f.Lease, f.Term).Scan(&stands)
	}
	if err == nil && !stands {
		err = envelope.ErrFenced
	}
	return err
}

// Acquire takes the lease of that name for ttl, if nobody has it or it is the
// holder's own of before; held is false where another instance has it. delivered
// is the highest stream sequence that an earlier holder noted with Reached. The
// database sessions of handlers under earlier terms are ended.
func (in *Inbox) Acquire(ctx context.Context, name, holder string, ttl time.Duration) (f envelope.Fence, delivered uint64, held bool, err error) {
	var raised *string
	var reached int64
	f.Lease = name
	err = in.pool.QueryRow(ctx, in.leases.acquire, name, holder, ttl).Scan(&raised, &f.Term, &reached)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return envelope.Fence{}, 0, false, nil
	case err != nil:
		return envelope.Fence{}, 0, false, in.explain("acquire lease "+name, err)
	}
	// Best effort: a role may lack the right, and then what hangs is waited for.
	_, _ = in.pool.Exec(ctx, in.leases.evict, name)
	return f, uint64(reached), true, nil
}

// Renew keeps the lease for ttl from now; held is false where another instance
// has taken over.
func (in *Inbox) Renew(ctx context.Context, f envelope.Fence, ttl time.Duration) (held bool, err error) {
	tag, err := in.pool.Exec(ctx, in.leases.renew, f.Lease, f.Term, ttl)
	if err != nil {
		return false, in.explain("renew lease "+f.Lease, err)
	}
	return tag.RowsAffected() == 1, nil
}

// Release lets the next instance take over at once. A lease that somebody else
// has is left alone.
func (in *Inbox) Release(ctx context.Context, f envelope.Fence) error {
	if _, err := in.pool.Exec(ctx, in.leases.release, f.Lease, f.Term); err != nil {
		return in.explain("release lease "+f.Lease, err)
	}
	return nil
}

// Reached notes the highest stream sequence that was delivered so far. It fails
// with envelope.ErrFenced where another instance has taken over.
func (in *Inbox) Reached(ctx context.Context, f envelope.Fence, sequence uint64) error {
	return in.fenced(ctx, "note the position of lease ", in.leases.reached, f, int64(sequence))
}

// fenced executes a statement that changes a row only under the lease.
func (in *Inbox) fenced(ctx context.Context, what, sql string, f envelope.Fence, args ...any) error {
	tag, err := in.pool.Exec(ctx, sql, append([]any{f.Lease, f.Term}, args...)...)
	if err != nil {
		return in.explain(what+f.Lease, err)
	}
	if tag.RowsAffected() == 0 {
		return in.explain(what+f.Lease, envelope.ErrFenced)
	}
	return nil
}
