package main

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// verifySQL is constant: the query behind figures.
//
//go:embed verify.sql
var verifySQL string

// figures are the closing table. verify.sql says how each is counted.
type figures struct {
	Requested       int64 `db:"requested" json:"requested"`
	Committed       int64 `db:"committed" json:"committed"`
	ExpectedRefused int64 `db:"expected_refused" json:"expected_refused"`
	Effects         int64 `db:"effects" json:"effects"`
	Nodes           int64 `db:"nodes" json:"nodes"`
	Lost            int64 `db:"lost" json:"lost"`
	Duplicated      int64 `db:"duplicated" json:"duplicated"`
	OutOfOrder      int64 `db:"out_of_order" json:"out_of_order"`
	Phantoms        int64 `db:"phantoms" json:"published_without_commit"`
	DeadLettered    int64 `db:"dead_lettered" json:"dead_lettered"`
	ExpectedDead    int64 `db:"expected_dead" json:"expected_dead_lettered"`
	Replayed        int64 `db:"replayed" json:"replayed"`
	Redelivered     int64 `db:"redelivered" json:"redelivered"`
	Skipped         int64 `db:"skipped" json:"skipped_by_inbox"`
}

// readFigures counts, in the database that holds the facts.
func readFigures(ctx context.Context, facts *pgxpool.Pool) (figures, error) {
	rows, err := facts.Query(ctx, verifySQL)
	if err != nil {
		return figures{}, err
	}
	f, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[figures])
	if err != nil {
		return f, fmt.Errorf("count the closing figures: %w", err)
	}
	return f, nil
}

// faults says what is wrong with a run: broken promises, figures that do not add
// up, and a run that put nothing to the test and is therefore void.
func (f figures) faults(wantedKills, kills int, replay bool) []string {
	faults := []string{} // not nil: JSON shows an empty list
	say := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	say(f.Lost > 0, "%d requests are lost: committed, and neither in effect nor a visible dead letter", f.Lost)
	say(f.Duplicated > 0, "%d effects came more than once", f.Duplicated)
	say(f.OutOfOrder > 0, "%d effects are out of order", f.OutOfOrder)
	say(f.Phantoms > 0, "%d messages were published whose transaction did not commit", f.Phantoms)
	say(f.Committed+f.ExpectedRefused != f.Requested, "%d requests, of which %d are to be refused, but %d were committed",
		f.Requested, f.ExpectedRefused, f.Committed)
	say(f.DeadLettered != f.ExpectedDead, "%d dead letters, but the input has %d faulty servers", f.DeadLettered, f.ExpectedDead)
	say(f.Effects != f.Committed-f.DeadLettered+f.Replayed, "%d effects, but %d requests less %d dead letters, of which %d were replayed",
		f.Effects, f.Committed, f.DeadLettered, f.Replayed)
	say(f.Replayed != oneIf(replay), "%d dead letters were resolved by a replay, not %d", f.Replayed, oneIf(replay))
	say(kills != wantedKills, "void: maskin was killed %d times, not %d", kills, wantedKills)
	say(kills > 0 && f.Redelivered == 0, "void: nothing was delivered twice, so the kills hit nothing")
	return faults
}

func oneIf(happened bool) int64 {
	if happened {
		return 1
	}
	return 0
}
