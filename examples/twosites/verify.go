package main

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The queries behind the closing tables are constant.
var (
	//go:embed verify.sql
	verifySQL string
	//go:embed faults.sql
	faultsSQL string
)

const (
	// mostCatchUp and leastShare are what --bars asks for: how long a site may need
	// after the last heal, and how much of its own throughput stays while the link is
	// disturbed.
	mostCatchUp = 10 * time.Second
	leastShare  = 0.95
)

// figures are the closing table of one site. verify.sql says how each is counted.
type figures struct {
	Site                           string
	AskedEvents, AskedCommands     int64
	Events, Commands               int64 // of the site, committed
	CopiedEvents, CopiedCommands   int64 // of the other site, in the streams here
	Repeats                        int64
	OwnEffects, OtherEffects       int64
	Carried                        int64 // commands of the other site, carried out here
	Lost, Duplicated, OutOfOrder   int64
	Phantoms, Letters              int64
	CaughtUp                       float64 // seconds
	RateDisturbed, RateUndisturbed float64 // own effects a second
	P99Disturbed, P99Undisturbed   float64 // seconds from an own event to its effect
}

// share is how much of its own throughput the site kept while the link was disturbed.
func (f figures) share() float64 {
	if f.RateUndisturbed == 0 {
		return 0
	}
	return f.RateDisturbed / f.RateUndisturbed
}

// struck is what one fault did. faults.sql says how it is counted.
type struck struct {
	Kind                    string
	After, Lasted, CaughtUp float64 // seconds
	Made, Passed            int64
}

// queryer is a pool, or a transaction.
type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readReport counts, in the database that holds the facts.
func readReport(ctx context.Context, facts queryer) (*report, error) {
	r := &report{}
	rows, err := facts.Query(ctx, verifySQL)
	if err != nil {
		return nil, err
	}
	if r.sites, err = pgx.CollectRows(rows, pgx.RowToStructByName[figures]); err != nil {
		return nil, fmt.Errorf("count the closing figures: %w", err)
	}
	if rows, err = facts.Query(ctx, faultsSQL); err != nil {
		return nil, err
	}
	if r.struck, err = pgx.CollectRows(rows, pgx.RowToStructByName[struck]); err != nil {
		return nil, fmt.Errorf("count the faults of the link: %w", err)
	}
	return r, nil
}

// verdict says what is wrong with a run: broken promises, figures that do not add up,
// and a run that put nothing to the test and is therefore void.
func (r *report) verdict(opts options) (faults []string) {
	say := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	say(len(r.sites) != 2, "void: %d sites are in the facts, not 2", len(r.sites))
	for i, f := range r.sites {
		other := r.sites[len(r.sites)-1-i]
		say(f.Lost > 0, "%s: %d messages are lost: committed at either site, and not in effect here", f.Site, f.Lost)
		say(f.Duplicated > 0, "%s: %d effects came more than once", f.Site, f.Duplicated)
		say(f.OutOfOrder > 0, "%s: %d effects or messages are out of order", f.Site, f.OutOfOrder)
		say(f.Phantoms > 0, "%s: %d effects or messages have nothing committed behind them", f.Site, f.Phantoms)
		say(f.Letters > 0, "%s: %d dead letters, where nothing is faulty", f.Site, f.Letters)
		say(f.Events != f.AskedEvents || f.Commands != f.AskedCommands, "%s: %d events and %d commands were asked for, and %d and %d committed",
			f.Site, f.AskedEvents, f.AskedCommands, f.Events, f.Commands)
		say(f.CopiedEvents != other.Events || f.CopiedCommands != other.Commands, "%s: %d events and %d commands of %s came over the link, of %d and %d",
			f.Site, f.CopiedEvents, f.CopiedCommands, other.Site, other.Events, other.Commands)
		say(f.OwnEffects != f.Events || f.OtherEffects != other.Events || f.Carried != other.Commands,
			"%s: %d own effects of %d, of %s %d of %d, and %d commands carried out of %d",
			f.Site, f.OwnEffects, f.Events, other.Site, f.OtherEffects, other.Events, f.Carried, other.Commands)
		say(f.RateDisturbed == 0 || f.RateUndisturbed == 0, "void: %s: its own throughput was not seen with and without a fault of the link", f.Site)
		say(opts.bars && f.CaughtUp > mostCatchUp.Seconds(), "%s: caught up %.1f s after the last heal, not within %s", f.Site, f.CaughtUp, mostCatchUp)
		say(opts.bars && f.share() < leastShare, "%s: %.3f of its own throughput while the link was disturbed, not %.2f", f.Site, f.share(), leastShare)
	}
	say(len(r.struck) != len(plan), "void: %d faults of the link, not %d", len(r.struck), len(plan))
	for i, s := range r.struck {
		say(s.Made == 0, "void: fault %d (%s): nothing was committed meanwhile", i+1, s.Kind)
		say(s.Passed > 0 && (s.Kind == kindCut || s.Kind == kindHole), "void: fault %d (%s): %d messages passed all the same", i+1, s.Kind, s.Passed)
	}
	return faults
}
