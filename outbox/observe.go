package outbox

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"codeberg.org/dataverket/messaging/internal/sleep"
)

// How often the database is asked what waits. Every instance asks, also a
// standby: a leader that cannot do its work may not know it.
const (
	observeEvery = 10 * time.Second
	observeSoon  = time.Second // while something is late
	observeLimit = 10_000      // rows of each stream that are counted
)

// observation is what the database says at one moment.
type observation struct {
	at      time.Time // local clock
	term    int64     // of the lease; 0 if nobody ever led
	rows    int64     // in the table, published ones included, estimated; -1 if unknown
	streams []observed
}

// observed is one stream at that moment.
type observed struct {
	stream      string
	unpublished int64         // counted up to observeLimit
	age         time.Duration // of the oldest unpublished row; 0 without one
	still       time.Duration // since the cursor moved
	parked      int64         // keys
}

// old tells that the next observations did not come.
func (o *observation) old(every time.Duration) bool { return time.Since(o.at) > 3*every+observeSoon }

// observer asks the database what waits. While nothing does, that is one
// statement; how much waits and for how long is asked only where something does.
type observer struct {
	pool    *pgxpool.Pool
	sql     observeSQL
	every   time.Duration
	timeout time.Duration
}

// observeSQL finds out what waits.
type observeSQL struct{ observe, status string }

func newObserver(pool *pgxpool.Pool, schema string) observer {
	in := func(sql string) string { return strings.ReplaceAll(sql, "{{schema}}", schema) }
	return observer{pool: pool, sql: newObserveSQL(in), every: observeEvery, timeout: observeEvery / 2}
}

func newObserveSQL(in func(string) string) observeSQL {
	return observeSQL{
		// Nothing pins its plan, for the reason that glance gives. "any(array(select
		// …))" has the planner expect few streams: with many it would compile the
		// statement, for seconds.
		observe: in(`
select coalesce((select term from {{schema}}.outbox_lease), 0), ` + tableRows + `,
       s.stream, ` + waiting + `, clock_timestamp() - s.updated_at,
       (select count(*) from {{schema}}.outbox_parked p where p.stream = s.stream)
from {{schema}}.outbox_state s
where s.stream = any(array(select stream from {{schema}}.outbox_state))`),
		status: in(statusSQL),
	}
}

// run observes until ctx ends, and tells each observation. Where told answers
// that something is late, the next one comes soon.
func (o observer) run(ctx context.Context, told func(*observation) (late bool)) {
	for ctx.Err() == nil {
		pause := o.every
		if seen, err := o.observe(ctx); err == nil && told(seen) {
			pause = min(pause, observeSoon)
		}
		sleep.For(ctx, pause)
	}
}

// observe asks once.
func (o observer) observe(ctx context.Context) (*observation, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	seen := &observation{at: time.Now()}
	waits := false
	rows, err := o.pool.Query(ctx, o.sql.observe, pgx.QueryExecModeExec)
	if err == nil {
		seen.streams, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (s observed, err error) {
			var waiting bool
			err = r.Scan(&seen.term, &seen.rows, &s.stream, &waiting, &s.still, &s.parked)
			waits = waits || waiting
			return s, err
		})
	}
	if err == nil && waits {
		err = o.measure(ctx, seen)
	}
	if err != nil {
		return nil, fmt.Errorf("observe the outbox: %w", explain(err))
	}
	return seen, nil
}

// measure adds how much waits, and for how long.
func (o observer) measure(ctx context.Context, seen *observation) error {
	var batch pgx.Batch
	batch.Queue(pinPlan)
	batch.Queue(o.sql.status, int64(observeLimit)).Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, scanStream)
		for _, t := range all {
			for i := range seen.streams {
				if s := &seen.streams[i]; s.stream == t.Stream {
					s.unpublished, s.age = t.Unpublished, t.OldestAge
				}
			}
		}
		return err
	})
	return o.pool.SendBatch(ctx, &batch).Close()
}
