package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// RewindPlan is what a rewind would publish again, as of now.
type RewindPlan struct {
	Stream   string    `json:"stream"`
	Key      string    `json:"key,omitempty"`
	Anchor   time.Time `json:"anchor,omitzero"` // that it goes back to; zero: the oldest retained row
	Rows     int64     `json:"rows"`            // messages; discarded and held ones are not among them
	Keys     int64     `json:"keys"`            // ordering keys of these messages
	Capped   bool      `json:"capped"`          // there are more than Rows and Keys say
	FirstSeq int64     `json:"first_seq"`       // of the rows in outbox_events
	LastSeq  int64     `json:"last_seq"`
	Oldest   time.Time `json:"oldest"` // when the oldest of them was enqueued
	Newest   time.Time `json:"newest"` // and the newest
}

// PlanRewind says what RequestRewind would have published again, and changes
// nothing. It refuses what RequestRewind would refuse, with the same errors; By
// and Reason may be empty. Rows are counted up to 100,000. For one key it reads
// all rows of the stream since then, a second or two for each million.
func PlanRewind(ctx context.Context, pool *pgxpool.Pool, schema string, r RewindRequest) (RewindPlan, error) {
	const act = "plan a rewind"
	quoted, err := r.check(act, schema)
	if err != nil {
		return RewindPlan{}, err
	}
	var p RewindPlan
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, pinSearch); err != nil {
			return err
		}
		if p, err = readPlan(ctx, tx, quoted, r); err != nil {
			return err
		}
		return r.obstacle(ctx, tx, quoted)
	})
	if err != nil {
		return RewindPlan{}, fmt.Errorf("outbox: %s of %s: %w", act, r.what(), explain(err))
	}
	return p, nil
}

// rewindHead is where a rewind begins.
type rewindHead struct {
	anchor  *time.Time // nil is the beginning
	seq     int64
	id      string
	subject string
}

// readRewindHead returns the first row that would be published again.
func readRewindHead(ctx context.Context, tx pgx.Tx, quoted string, r RewindRequest) (h rewindHead, err error) {
	err = tx.QueryRow(ctx, inSchema(quoted, rewindCursors()+`
select c.at, f.seq, f.id::text, f.subject from c cross join (`+published("asc", "1")+`) f`),
		r.Stream, r.since(), r.Key).Scan(&h.anchor, &h.seq, &h.id, &h.subject)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNothingToRewind
	}
	return h, err
}

// readPlan reads the rows once, up to the limit. Where there are more, the last
// one is looked for from the end.
func readPlan(ctx context.Context, tx pgx.Tx, quoted string, r RewindRequest) (RewindPlan, error) {
	p := RewindPlan{Stream: r.Stream, Key: r.Key}
	var anchor, oldest, newest *time.Time
	err := tx.QueryRow(ctx, inSchema(quoted, rewindCursors()+`
select c.at, n.keys, least(coalesce(n.rows, 0), $4), coalesce(n.rows, 0) > $4,
       coalesce(n.first, 0), coalesce(n.last, 0), n.oldest, n.newest
  from c cross join (
    select count(*) as keys, sum(k.rows)::bigint as rows, min(k.first) as first, max(k.last) as last,
           min(k.oldest) as oldest, max(k.newest) as newest
      from (select count(*) as rows, min(seq) as first, max(seq) as last, min(created_at) as oldest, max(created_at) as newest
              from (`+published("asc", "$4 + 1")+`) e group by e.ordering_key) k) n`),
		r.Stream, r.since(), r.Key, int64(tally)).
		Scan(&anchor, &p.Keys, &p.Rows, &p.Capped, &p.FirstSeq, &p.LastSeq, &oldest, &newest)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && p.Rows == 0 {
		return p, ErrNothingToRewind
	}
	p.Anchor, p.Oldest, p.Newest = orZero(anchor), orZero(oldest), orZero(newest)
	if err == nil && p.Capped {
		err = tx.QueryRow(ctx, inSchema(quoted, rewindCursors()+`
select f.seq, f.created_at from (`+published("desc", "1")+`) f`), r.Stream, r.since(), r.Key).Scan(&p.LastSeq, &p.Newest)
	}
	return p, err
}

const (
	// usable is the condition of an anchor that a rewind may go back to. An anchor
	// of another stream of the same name says nothing of this one. And what was
	// held when it was the cursor, and released since, was published after it, yet
	// would not be again from there.
	usable = `a.stream_created is not distinct from s.stream_created and (s.released_at is null or a.at > s.released_at)`

	// usableForKey is the same for a rewind of one key, $3, or of the stream where
	// that is "": releases of other keys do not concern it.
	usableForKey = `a.stream_created is not distinct from s.stream_created
     and (s.released_at is null or a.at > s.released_at or $3 <> '' and not exists (
       select from {{schema}}.outbox_decisions d
        where d.stream = a.stream and d.ordering_key = $3 and d.act <> 'rewind'))`
)

// rewindCursors finds the cursor as it is, and the one to go back to: $2 is the
// moment, null the beginning, $3 the key.
func rewindCursors() string {
	return `
with a as (
  select a.* from {{schema}}.outbox_anchors a join {{schema}}.outbox_state s using (stream)
   where a.stream = $1 and a.at <= $2 and ` + usableForKey + `
   order by a.at desc limit 1
), c as (
  select s.stream, s.base as now_base, s.target as now_target, s.position as now_position,
         a.at, coalesce(a.base, '1:1:') as base, coalesce(a.floor, 0) as floor, a.target, a.position,
         (select f.low from {{schema}}.outbox_foreign f where f.stream = s.stream and f.base is null) as low
    from {{schema}}.outbox_state s left join a on true where s.stream = $1
)`
}

// published is the query of the first rows that the cursor has passed and the one
// to go back to has not, in the order of seq, "asc" or "desc". It reads like
// a page of a walk: what began after the base is behind the floor, and late rows
// are found by their transaction. Each index serves one collation.
//
// Discarded messages and those of parked keys are not published again. Of a key
// that is rewound nothing is parked. Rows that came from another cluster are
// published up to low, whatever their ids say yet.
func published(order, limit string) string {
	const wanted = `
      and (c.target is null or e.seq > c.position or not pg_visible_in_snapshot(e.xid, c.target))
      and (pg_visible_in_snapshot(e.xid, c.now_base) or e.seq <= c.low
           or c.now_target is not null and e.seq <= c.now_position and pg_visible_in_snapshot(e.xid, c.now_target))
      and ($3 = '' or e.ordering_key = $3)
      and not exists (select from {{schema}}.outbox_discarded x where x.stream = e.stream and x.seq = e.seq and x.id = e.id)
      and not exists (select from {{schema}}.outbox_parked p
                       where $3 = '' and p.stream = e.stream and p.ordering_key = e.ordering_key and e.seq >= p.seq)
    `
	return strings.NewReplacer("<wanted>", wanted, "<order>", order, "<limit>", limit, "<columns>",
		`e.seq, e.id, e.subject, e.ordering_key, e.created_at`).Replace(`
  (select early.* from c cross join lateral (
     select <columns> from {{schema}}.outbox_events e
      where e.stream = c.stream and e.seq > c.floor and (e.xid >= pg_snapshot_xmax(c.base)) is true <wanted>
      order by seq <order> limit <limit>) early)
  union all
  (select late.* from c cross join lateral pg_snapshot_xip(c.base) as x cross join lateral (
     select <columns> from {{schema}}.outbox_events e
      where e.stream = c.stream collate "C" and e.xid between x and x <wanted>
      order by seq <order> limit <limit>) late)
  order by seq <order> limit <limit>`)
}
