package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the result of a run.
type report struct {
	sites  []figures
	struck []struck
	took   time.Duration
	// faults is empty when every promise was kept and the run was no void one.
	faults []string
}

// write prints the report and returns an error when the run failed.
func (r *report) write(w io.Writer) error {
	r.writeFaults(w)
	r.writeFigures(w)
	fmt.Fprintf(w, "\n%s in all\n", r.took.Round(100*time.Millisecond))
	if len(r.faults) > 0 {
		return fmt.Errorf("%d fault(s):\n  %s", len(r.faults), strings.Join(r.faults, "\n  "))
	}
	return nil
}

func (r *report) writeFaults(w io.Writer) {
	fmt.Fprintln(w, "\nFAULTS of the link, and how long after each heal all was in effect at the other site")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "  at\tkind\tlasted\tcommitted meanwhile\tof them passed\tcaught up\t")
	for _, s := range r.struck {
		fmt.Fprintf(t, "  %.1f s\t%s\t%.2f s\t%d\t%d\t%.2f s\t\n", s.After, s.Kind, s.Lasted, s.Made, s.Passed, s.CaughtUp)
	}
	t.Flush()
}

func (r *report) writeFigures(w io.Writer) {
	fmt.Fprintln(w, "\nCLOSING FIGURES, counted in the databases and in the streams")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name, note string, value func(figures) string) {
		fmt.Fprintf(t, "  %s\t", name)
		for _, f := range r.sites {
			fmt.Fprintf(t, "%s\t", value(f))
		}
		fmt.Fprintf(t, "  %s\n", note)
	}
	count := func(name, note string, value func(figures) int64) {
		row(name, note, func(f figures) string { return fmt.Sprint(value(f)) })
	}
	row("", "", func(f figures) string { return f.Site })
	count("sent", "events of the site, committed", func(f figures) int64 { return f.Events })
	count("ordered", "commands to the other site, committed", func(f figures) int64 { return f.Commands })
	count("copied", "events of the other site that are in the copy here", func(f figures) int64 { return f.CopiedEvents })
	count("own effects", "of the site's events, here", func(f figures) int64 { return f.OwnEffects })
	count("other's effects", "of the other site's events, here", func(f figures) int64 { return f.OtherEffects })
	count("carried out", "commands of the other site, here", func(f figures) int64 { return f.Carried })
	count("lost", "committed at either site, and not in effect here where it has to be", func(f figures) int64 { return f.Lost })
	count("duplicated", "effects beyond the first", func(f figures) int64 { return f.Duplicated })
	count("out of order", "steps back of a server, in effects and in streams", func(f figures) int64 { return f.OutOfOrder })
	count("absorbed", "repeats that came over the link, which the inbox skipped", func(f figures) int64 { return f.Repeats })
	row("caught up", "after the last heal: all that was committed before it is in effect here", func(f figures) string { return fmt.Sprintf("%.2f s", f.CaughtUp) })
	row("disturbed", "own effects a second, from a fault's begin until both sites had caught up", func(f figures) string { return fmt.Sprintf("%.0f/s", f.RateDisturbed) })
	row("undisturbed", "own effects a second, the rest of the time", func(f figures) string { return fmt.Sprintf("%.0f/s", f.RateUndisturbed) })
	row("kept", "disturbed / undisturbed", func(f figures) string { return fmt.Sprintf("%.3f", f.share()) })
	row("p99", "from an own change to its effect, disturbed / undisturbed", func(f figures) string {
		return fmt.Sprintf("%.0f / %.0f ms", 1000*f.P99Disturbed, 1000*f.P99Undisturbed)
	})
	t.Flush()
}
