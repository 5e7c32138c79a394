package outbox

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/pgschema"
)

// countLimit bounds how many unpublished rows ReadStatus counts per stream.
const countLimit = 1_000_000

// Status is what an operator asks first: who publishes, and what waits.
type Status struct {
	Leader       string         `json:"leader"`        // holder of the lease; "" if there never was one
	Term         int64          `json:"term"`          // counts the changes of leadership
	Led          bool           `json:"led"`           // the lease is valid now
	LeaseExpires time.Time      `json:"lease_expires"` // database time
	RowsEstimate int64          `json:"rows_estimate"` // rows in the table, published ones included, by PostgreSQL's counters; -1 if they know nothing yet
	Streams      []StreamStatus `json:"streams"`       // by name
}

// StreamStatus is the state of one destination stream.
type StreamStatus struct {
	Stream        string        `json:"stream"`
	Unpublished   int64         `json:"unpublished"`         // committed and not yet recorded as stored
	Capped        bool          `json:"capped"`              // there are more than Unpublished says
	OldestAge     time.Duration `json:"oldest_age_ns"`       // of the oldest unpublished row; 0 without one
	AckedSequence int64         `json:"acked_sequence"`      // the highest stream sequence recorded as stored
	Walking       bool          `json:"walking"`             // a backlog larger than a page is being drained
	Moved         time.Time     `json:"moved"`               // when the cursor moved last
	LostTimeline  int64         `json:"lost_timeline"`       // messages of ours found in the stream that the outbox did not know: the database went back to an earlier moment
	Foreign       bool          `json:"foreign"`             // rows came from another PostgreSQL cluster; the relay takes them over, and until then some numbers are estimates
	Rewinds       int64         `json:"rewinds"`             // how often the cursor went back: the broker had lost messages, or an operator asked for it
	RewoundAt     time.Time     `json:"rewound_at,omitzero"` // when it went back last; zero if never
	Recreated     bool          `json:"recreated"`           // the stream was deleted and created anew and waits for AcceptStream

	// What the cursor passed over, and what it passed.
	Parked           int64         `json:"parked"`               // ordering keys that are held back until an operator decides
	OldestParkedAge  time.Duration `json:"oldest_parked_age_ns"` // since the first of them was parked; 0 without one
	Held             int64         `json:"held"`                 // rows of parked keys that the cursor passed: neither published nor counted in Unpublished
	HeldCapped       bool          `json:"held_capped"`          // only the first 100,000 rows from the first parked one on were looked at
	Discarded        int64         `json:"discarded"`            // messages given up whose rows are still there; counted up to 100,000
	RetainedEstimate int64         `json:"retained_estimate"`    // published rows, discarded ones included; exact up to 10,000, beyond that by PostgreSQL's statistics; -1 if they know nothing yet

	// How far back messages can be published again.
	Anchors        int64     `json:"anchors"`                // earlier cursors that a rewind can go back to
	OldestAnchor   time.Time `json:"oldest_anchor,omitzero"` // the earliest of them; zero without one
	RewindRequests int64     `json:"rewind_requests"`        // that operators made and no relay has carried out yet
}

// ReadStatus reads the state of an outbox from the database alone; neither
// relay nor broker is asked. schema as in Config; "" is the default.
func ReadStatus(ctx context.Context, pool *pgxpool.Pool, schema string) (Status, error) {
	if schema == "" {
		schema = pgschema.Default
	}
	quoted, err := pgschema.Quote(schema)
	if err != nil {
		return Status{}, fmt.Errorf("outbox: status: schema: %w", err)
	}
	var s Status
	// One transaction, so that lease and streams are of one moment.
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := readLease(ctx, tx, quoted, &s); err != nil {
			return err
		}
		if err := readStreams(ctx, tx, quoted, &s); err != nil {
			return err
		}
		return readRest(ctx, tx, quoted, &s)
	})
	if err != nil {
		return Status{}, fmt.Errorf("outbox: status: %w", explain(err))
	}
	return s, nil
}

func readLease(ctx context.Context, tx pgx.Tx, schema string, s *Status) error {
	sql := strings.ReplaceAll(`
select coalesce(l.holder, ''), coalesce(l.term, 0), coalesce(l.expires_at, 'epoch'), coalesce(l.expires_at > clock_timestamp(), false),
       `+tableRows+`
from (select true) one left join {{schema}}.outbox_lease l on true`, "{{schema}}", schema)
	return tx.QueryRow(ctx, sql).Scan(&s.Leader, &s.Term, &s.LeaseExpires, &s.Led, &s.RowsEstimate)
}

// statusSQL counts what is not published, up to a limit, without looking at what
// is. While a walk is under way, that is what it has yet to read, and what the
// snapshot it ends at does not see; else what the base does not see.
const statusSQL = `
select s.stream, least(u.n, $1), u.n > $1, coalesce(clock_timestamp() - u.oldest, '0')::interval,
       s.acked_sequence, s.target is not null, s.updated_at, s.rewinds, s.recreated is not null, s.lost_timeline, f.stream is not null
from {{schema}}.outbox_state s left join {{schema}}.outbox_foreign f using (stream)
cross join lateral (
  select count(*) as n, min(created_at) as oldest
  from (
    (select e.created_at from {{schema}}.outbox_events e
      where s.target is not null and e.stream = s.stream and e.seq > greatest(s.position, s.floor) and e.seq <= s.ceiling
        and e.xid >= pg_snapshot_xmax(s.base) and pg_visible_in_snapshot(e.xid, s.target)
      order by e.seq limit $1 + 1)
    union all
    (select e.created_at from {{schema}}.outbox_events e
      where ` + ofStream + ` and e.xid >= pg_snapshot_xmax(coalesce(s.target, s.base)) and e.seq > coalesce(f.low, 0)
      order by e.xid, e.seq limit $1 + 1)
    union all
    (select late.created_at from pg_snapshot_xip(s.target) as x cross join lateral (
      select e.created_at from {{schema}}.outbox_events e
       where x >= pg_snapshot_xmax(s.base) and ` + late + `
       order by e.xid, e.seq limit $1 + 1) late)
    union all
    (select late.created_at from pg_snapshot_xip(s.base) as x cross join lateral (
      select e.created_at from {{schema}}.outbox_events e
       where ` + late + ` and (s.target is null or e.seq > s.position or not pg_visible_in_snapshot(x, s.target))
       order by e.xid, e.seq limit $1 + 1) late)
    limit $1 + 1
  ) waiting
) u
order by s.stream`

func readStreams(ctx context.Context, tx pgx.Tx, schema string, s *Status) error {
	if _, err := tx.Exec(ctx, pinPlan); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, strings.ReplaceAll(statusSQL, "{{schema}}", schema), int64(countLimit))
	if err != nil {
		return err
	}
	s.Streams, err = pgx.CollectRows(rows, scanStream)
	return err
}

func scanStream(r pgx.CollectableRow) (t StreamStatus, err error) {
	err = r.Scan(&t.Stream, &t.Unpublished, &t.Capped, &t.OldestAge, &t.AckedSequence, &t.Walking, &t.Moved, &t.Rewinds, &t.Recreated, &t.LostTimeline, &t.Foreign)
	return t, err
}
